"""Which patches are hidden in masked training."""

import torch
from common import GRID


def block_mask(n: int, target: torch.Tensor | int, generator: torch.Generator, rounds: int = 10) -> torch.Tensor:
    """Block-wise masks (n, 49): rectangles of 2..4 x 2..4 patches are added until `target` patches are hidden.

    BEiT (arXiv 2106.08254, algorithm 1) in vector form: every round offers each image one rectangle, and an image that
    has enough takes no more. The last rectangle may overshoot, by 2 to 3 patches on average.
    """
    mask = torch.zeros(n, GRID, GRID, dtype=torch.bool)
    place = torch.arange(GRID)
    for _ in range(rounds):
        size = torch.randint(2, 5, (2, n, 1), generator=generator)
        start = (torch.rand(2, n, 1, generator=generator) * (GRID + 1 - size)).long()
        rows, cols = (start <= place) & (place < start + size)
        wants = mask.sum((1, 2)) < target
        mask |= rows.unsqueeze(2) & cols.unsqueeze(1) & wants.view(n, 1, 1)
    return mask.flatten(1)
