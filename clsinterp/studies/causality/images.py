"""Pairs of images to count in: garments on a canvas, and the same canvas with one of them taken away.

The layout is ours (the paper's could not be verified): a 3 x 3 grid of cells, one object to a cell, shifted inside it at
random, on dim noise. Clean and corrupted image differ in the pixels of the removed object only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.interventions import Seed, generator

SIDE, CELL, OBJECT, CELLS, MOST = 56, 18, 14, 9, 6
NAMES = [str(count) for count in range(1, MOST + 1)]  # class i is the count i + 1
VISIBLE = 0.1  # brighter than this, of 1: object, not background
NOISE = 0.15
DIMMEST = 0.6  # objects are drawn at 0.6 to 1 of their brightness


@dataclass(frozen=True)
class Pairs:
    """Paired images in [0, 1].

    Attributes:
        clean, corrupted: (n, SIDE, SIDE); corrupted lacks one object.
        count: objects in the clean image, 2 to 6; the corrupted one has one less.
        removed: where the removed object was.
        others: where the remaining objects are.
    """

    clean: Float[Tensor, "n side side"]
    corrupted: Float[Tensor, "n side side"]
    count: Int[Tensor, " n"]
    removed: Bool[Tensor, "n side side"]
    others: Bool[Tensor, "n side side"]

    def __len__(self) -> int:
        return len(self.count)


def objects(images: list[Image.Image]) -> Float[Tensor, "n object object"]:
    """Images as grey objects of 14 x 14 pixels in [0, 1]."""
    grey = [np.asarray(i.convert("L").resize((OBJECT, OBJECT), Image.Resampling.BILINEAR), np.float32) for i in images]
    return torch.from_numpy(np.stack(grey)) / 255


def visible(garments: Float[Tensor, "n object object"]) -> Float[Tensor, "kept object object"]:
    """The objects that can be told from the background at any brightness they may be drawn with."""
    return garments[garments.flatten(1).amax(1) * DIMMEST > VISIBLE]


def compose(
    garments: Float[Tensor, "n object object"], count: Int[Tensor, " batch"], random: torch.Generator
) -> tuple[Float[Tensor, "batch side side"], Float[Tensor, "batch cell side side"]]:
    """Canvases with `count` objects each: the image, and one layer per cell with what was put there (0: nothing)."""
    n = len(count)
    order = torch.rand(n, CELLS, generator=random).argsort(1)  # which cells are taken: the first `count` of a shuffle
    taken = torch.zeros(n, CELLS).scatter(1, order, (torch.arange(CELLS) < count.unsqueeze(1)).float())
    chosen = garments[torch.randint(len(garments), (n, CELLS), generator=random)]
    bright = DIMMEST + (1 - DIMMEST) * torch.rand(n, CELLS, 1, 1, generator=random)
    shift = torch.randint(0, CELL - OBJECT, (2, n, CELLS), generator=random)  # so that no two objects touch
    cells = torch.arange(CELLS)
    corner = torch.stack([cells // 3, cells % 3]).unsqueeze(1) * CELL + shift + (SIDE - 3 * CELL) // 2
    layers = torch.zeros(n, CELLS, SIDE, SIDE)
    rows = (corner[0].unsqueeze(-1) + torch.arange(OBJECT)).unsqueeze(-1)
    columns = (corner[1].unsqueeze(-1) + torch.arange(OBJECT)).unsqueeze(-2)
    layers[torch.arange(n).view(-1, 1, 1, 1), cells.view(1, -1, 1, 1), rows, columns] = chosen * bright
    layers *= taken[:, :, None, None]
    background = NOISE * torch.rand(n, SIDE, SIDE, generator=random)
    return torch.maximum(background, layers.amax(1)), layers


def make_pairs(garments: Float[Tensor, "n object object"], n: int, seed: Seed) -> Pairs:
    """`n` pairs with 2 to 6 objects in the clean image, as many of each count as can be.

    Raises:
        RequestError: no pairs were asked for, or every object is too dark to be seen.
    """
    garments = visible(garments)
    if n < 1 or not len(garments):
        raise RequestError(
            f"{n} pairs of {len(garments)} objects (those bright enough to be seen) were asked for; at least 1 of each is "
            "expected."
        )
    random = generator(seed)
    count = torch.arange(n) % (MOST - 1) + 2
    clean, layers = compose(garments, count, random)
    there = (layers > VISIBLE).any(-1).any(-1)
    which = torch.multinomial(there.float(), 1, generator=random)[:, 0]
    removed = layers[torch.arange(n), which]
    rest = layers.clone()
    rest[torch.arange(n), which] = 0
    # The canvas under an object is not known any more; fresh noise of the same kind stands in its place.
    background = NOISE * torch.rand(n, SIDE, SIDE, generator=random)
    corrupted = torch.where(removed > 0, torch.maximum(background, rest.amax(1)), clean)
    return Pairs(clean, corrupted, count, removed > VISIBLE, (rest > VISIBLE).any(1))


def pictures(canvases: Float[Tensor, "n side side"]) -> list[Image.Image]:
    """Canvases as grey 8-bit images."""
    return [Image.fromarray(x.mul(255).round().to(torch.uint8).numpy()) for x in canvases]


def on_grid(mask: Bool[Tensor, "n side side"], rows: int, columns: int) -> Bool[Tensor, "n patch"]:
    """Which patches of a grid over the image a mask touches."""
    return F.adaptive_max_pool2d(mask.float().unsqueeze(1), (rows, columns)).flatten(1) > 0
