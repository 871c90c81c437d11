"""Intact activations of a batch: token groups at every layer, and the read-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from torch import Tensor

from clsinterp.models.layers import EMBEDDINGS, check_layers
from clsinterp.models.tokens import Where

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.models.traced import Traced
    from clsinterp.vision_model import VisionModel


def capture(
    model: VisionModel,
    pixels: Float[Tensor, "batch channel height width"],
    layers: Sequence[int],
    group: str | Sequence[str] = "cls",
) -> tuple[Float[Tensor, "*group layer batch d_model"], Float[Tensor, "batch d_readout"]]:
    """Tokens of `group` after each of `layers` (-1: before block 0), and what enters the classifier, from one forward.

    Groups of several tokens (``patches``, ``registers``) are averaged over their tokens, so that a model without a CLS
    token can be probed too.

    Args:
        model: the model.
        pixels: the batch.
        layers: where; the result has them sorted, without repeats.
        group: a token group; or several, which then have an axis of their own in front.

    Raises:
        RequestError: layer out of range, or no such tokens.
    """
    layers = check_layers(layers, model.n_layers)
    wheres = [model.layout.index(name) for name in ([group] if isinstance(group, str) else group)]
    size = model.per_request or len(pixels)
    parts = [_capture(model, part, layers, wheres) for part in pixels.split(size)]
    tokens = torch.cat([found for found, _ in parts], dim=2)  # (group, layer, batch, d_model)
    return tokens[0] if isinstance(group, str) else tokens, torch.cat([readout for _, readout in parts])


def _capture(
    model: VisionModel, pixels: Tensor, layers: Sequence[int], wheres: Sequence[Where]
) -> tuple[Tensor, Tensor]:
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
