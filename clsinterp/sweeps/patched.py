"""The trace behind activation patching by place: one forward, with one copy of the batch for each place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor

from clsinterp.hooks.points import walk
from clsinterp.sweeps.batching import run_block

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.vision_model import VisionModel


@torch.no_grad()
def patched(
    model: VisionModel, pixels: Tensor, layer: int, name: str, source: Tensor, places: Sequence[int], axis: int
) -> Float[Tensor, "place batch classes"]:
    """Logits of the run on `pixels`, once for each of `places` with that place taken from `source`.

    Args:
        model: the model.
        pixels: the batch.
        layer: the block that `name` stands in; copies are made before it.
        name: of the hook.
        source: the value there in another run, shaped as in this one.
        places: indices on `axis` of the value (its batch is axis 0 in `source`).
        axis: which axis of `source` they are on.
    """
    copies = len(places)

    def visit(_: str, value: Tensor) -> Tensor:
        grown = value.clone().unflatten(0, (copies, -1))  # (copy, n, ...)
        for copy, place in enumerate(places):
            grown[copy].select(axis, place).copy_(source.select(axis, place))
        return grown.flatten(0, 1)

    with model.trace(pixels):
        with torch.no_grad():
            entering = model.blocks[layer].input
            model.blocks[layer].input = entering.repeat(copies, *(1 for _ in entering.shape[1:]))
            walk(model, [name], visit)
            last = model.n_layers - 1
            if layer < last and model.reads_prefix:
                run_block(model, last, lambda h: None, prefix_only=True)
            logits = model.logits
        nnsight.save(logits)
    return logits.unflatten(0, (copies, -1))
