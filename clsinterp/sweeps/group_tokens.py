"""Several token groups at every layer from one forward."""

from collections.abc import Sequence

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.models.layers import EMBEDDINGS, check_layers
from clsinterp.vision_model import VisionModel


def group_tokens(
    model: VisionModel, pixels: Float[Tensor, "batch channel height width"], layers: Sequence[int],
    groups: Sequence[str] = ("cls", "patches"),
) -> dict[str, Float[Tensor, "layer batch d_model"]]:  # fmt: skip
    """For each group its token after each of `layers`; groups of several tokens are averaged.

    Raises:
        RequestError: layer out of range, or no such tokens.
    """
    layers = check_layers(layers, model.n_layers)
    where = {group: model.layout.index(group) for group in groups}
    with torch.no_grad(), model.trace(pixels):
        found: dict[str, list[Tensor]] = {group: [] for group in groups}
        for layer in layers:
            h = model.blocks[0].input if layer == EMBEDDINGS else model.blocks[layer].output
            for group, place in where.items():
                tokens = h[:, place]
                found[group].append(tokens.clone() if isinstance(place, int) else tokens.mean(dim=1))
        nnsight.save(found)
    return {group: torch.stack(tokens) for group, tokens in found.items()}
