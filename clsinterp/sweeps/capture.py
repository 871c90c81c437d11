"""Intact activations of a batch: one token group at every layer, and the read-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor

from clsinterp.models.layers import EMBEDDINGS, check_layers
from clsinterp.vision_model import VisionModel

if TYPE_CHECKING:  # annotations stay text: what travels to a server must not need the package there
    from jaxtyping import Float


def capture(
    model: VisionModel, pixels: Float[Tensor, "batch channel height width"], layers: Sequence[int], group: str = "cls"
) -> tuple[Float[Tensor, "layers batch d_model"], Float[Tensor, "batch d_readout"]]:
    """Tokens of `group` after each of `layers` (-1: before block 0), and what enters the classifier.

    Groups of several tokens (``patches``, ``registers``) are averaged over their tokens, so that a model without a CLS
    token can be probed too.

    Raises:
        RequestError: layer out of range, or no such tokens.
    """
    layers = check_layers(layers, model.n_layers)
    where = model.layout.index(group)

    def take(h: Tensor) -> Tensor:
        return h[:, where].clone() if isinstance(where, int) else h[:, where].mean(dim=1)

    size = model.per_request or len(pixels)
    parts = [_capture(model, part, layers, take) for part in pixels.split(size)]
    return torch.cat([tokens for tokens, _ in parts], dim=1), torch.cat([readout for _, readout in parts])


def _capture(
    model: VisionModel, pixels: Tensor, layers: Sequence[int], take: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), model.trace(pixels):
        with torch.no_grad():  # a server runs the body alone, without the mode around it
            tokens = [take(model.blocks[0].input if x == EMBEDDINGS else model.blocks[x].output) for x in layers]
            readout = model.readout.clone()
        nnsight.save(tokens)
        nnsight.save(readout)
    # With a device_map blocks are on several devices.
    return torch.stack([x.to(tokens[0].device) for x in tokens]), readout
