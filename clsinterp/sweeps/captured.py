"""The trace behind `clsinterp.capture`. Travels to a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from torch import Tensor

from clsinterp.models.layers import EMBEDDINGS
from clsinterp.models.tokens import Where

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced
    from clsinterp.vision_model import VisionModel


def captured(
    model: VisionModel, pixels: Tensor, layers: Sequence[int], wheres: Sequence[Where]
) -> tuple[Tensor, Tensor]:
    """Tokens at each of `wheres` after each of `layers`, (group, layer, batch, d_model), and what enters the classifier."""
    with torch.no_grad(), model.trace(pixels):
        with torch.no_grad():
            found = read_stream(model, layers, lambda h: [_mean(h, where) for where in wheres])
            readout = model.readout.clone()
        nnsight.save(found)
        nnsight.save(readout)
    # With a device_map blocks are on several devices.
    device = next(iter(found.values()))[0].device
    by_group = zip(*found.values(), strict=True)
    return torch.stack([torch.stack([x.to(device) for x in by_layer]) for by_layer in by_group]), readout


def _mean(h: Tensor, where: Where) -> Tensor:
    return h[:, where].clone() if isinstance(where, int) else h[:, where].mean(dim=1)


def read_stream(model: Traced, layers: Sequence[int], take: Callable[[Tensor], Any]) -> dict[int, Any]:
    """What `take` makes of the residual stream (batch, token, d_model) after each of `layers`, sorted; inside a trace."""
    return {x: take(model.blocks[0].input if x == EMBEDDINGS else model.blocks[x].output) for x in layers}
