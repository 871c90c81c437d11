"""Intact activations of a batch: token groups at every layer, and the read-out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from clsinterp.data.batches import batches
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.models.layers import check_layers
from clsinterp.sweeps.captured import captured

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.vision_model import VisionModel


class Captured(NamedTuple):
    """What `capture` took.

    Attributes:
        tokens: of each layer and image, (layer, batch, d_model); with several groups, (group, layer, batch, d_model).
        readout: what enters the classifier.
    """

    tokens: Float[Tensor, "*group layer batch d_model"]
    readout: Float[Tensor, "batch d_readout"]


def capture(
    model: VisionModel,
    images: Any,
    layers: Sequence[int] | None = None,
    group: str | Sequence[str] = "cls",
    batch_size: int = 64,
) -> Captured:
    """Tokens of `group` after each of `layers` (-1: before block 0), and what enters the classifier: one forward a batch.

    Groups of several tokens (``patches``, ``registers``) are averaged over their tokens, so that a model without a CLS
    token can be probed too.

    Args:
        model: the model.
        images: a `Split` (as `load_data` gives), PIL images, or pixels (batch, channel, height, width).
        layers: where; the result has them sorted, without repeats. Default: after every block.
        group: a token group; or several, which then have an axis of their own in front.
        batch_size: images per forward, for all but pixels, which go in one. On a server, as many as its `per_request`.

    Raises:
        RequestError: layer out of range, no such tokens, no images, or one that cannot be read.

    Example:
        >>> from clsinterp import VisionModel, capture, sample_images
        >>> capture(VisionModel("zoo/vit"), sample_images(5)[0], layers=(0, 5)).tokens.shape
        torch.Size([2, 5, 64])
    """
    layers = check_layers(range(model.n_layers) if layers is None else layers, model.n_layers)
    wheres = [model.layout.index(name) for name in ([group] if isinstance(group, str) else group)]
    parts = [captured(model, part, layers, wheres) for part in _batches(model, images, batch_size)]
    if not parts:
        raise RequestError("no images were given; at least one is expected.")
    tokens = torch.cat([found for found, _ in parts], dim=2)  # (group, layer, batch, d_model)
    return Captured(tokens[0] if isinstance(group, str) else tokens, torch.cat([readout for _, readout in parts]))


def _batches(model: VisionModel, images: Any, size: int) -> Iterator[Tensor]:
    """Pixels of `images`, a forward at a time."""
    size = model.per_request or size
    if isinstance(images, Tensor):
        pixels = model.pixels(images)
        yield from pixels.split(model.per_request or max(len(pixels), 1))
        return
    if isinstance(images, Split):
        yield from (model.pixels(x) for x in batches(images, model.image_processor, size))
        return
    listed = images if isinstance(images, Sequence) else [images]
    yield from (model.pixels(listed[i : i + size]) for i in range(0, len(listed), size))
