"""The cost formula of `clsinterp.runs.cost` against the clock, at three depths and three widths."""

import torch

from clsinterp.bench.models import Size, random_model, random_pixels
from clsinterp.bench.timing import Row, compare
from clsinterp.interventions import permute
from clsinterp.probing.head import Head
from clsinterp.runs.cost import Shape
from clsinterp.sweeps.batching import images_per_piece
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers

DEPTHS = (4, 8, 16)
SIZES = (
    Size(width=64, side=28, patch=4, images=64),
    Size(width=192, side=56, patch=8, images=32),
    Size(width=384, side=96, patch=16, images=24),
)


def cost_rows(quick: bool) -> list[Row]:
    """A fork's time over that of its block-passes by the formula, at the time one block takes alone."""
    repeats = 2 if quick else 7
    return [_row(depth, size, repeats) for size in SIZES[: 1 if quick else None] for depth in DEPTHS]


def _row(depth: int, size: Size, repeats: int) -> Row:
    model = random_model("vit", size, n_layers=depth)
    n, layers, pixels = size.images, range(depth), random_pixels(size)
    shape = Shape("", depth, size.width, (size.side // size.patch) ** 2 + 1, 4 * size.width, reads_token=True)
    readers, targets, donors = Readers(Head.of(model.family, model.heads)), torch.arange(n), permute(n, 0)
    block = model._module.get_submodule(model.family.blocks)[0]
    h = torch.randn(images_per_piece(shape.n_tokens), shape.n_tokens, size.width)
    passes = n * shape.fork_passes / len(h)
    timed = max(1, int(passes / 4))  # a quarter of them is timed, the rest is multiplied up

    @torch.no_grad()
    def block_alone() -> None:
        for _ in range(timed):
            block(h)

    return compare(
        f"fork, {depth} x {size.width}, {shape.n_tokens} tokens, {n} images",
        f"{n} x {shape.fork_passes:.1f} block-passes of {shape.block_flops / 1e9:.3g} GFLOP at one block's time",
        ">= 0.85",
        lambda: fork(model, pixels, targets, donors, readers, layers=layers),
        block_alone,
        repeats,
        scale=passes / timed,
    )
