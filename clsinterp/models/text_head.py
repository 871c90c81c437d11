"""Class names as a classifier: the cosine between an image's embedding and each name's, as CLIP is used.

Travels to a server, see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


class TextHead(nn.Linear):
    """A linear map of the read-out, divided by the length of the image's embedding.

    ``logits = weight @ x / |projection @ x| + bias``. The length is the same for every class, so ranks are those of the linear
    map alone, and `weight` can be read as that of any classifier: row c is the direction of class c.

    Args:
        texts: each class's embedding, of length one.
        scale: what cosines are multiplied by.
        bias: what is added to every logit (SigLIP).
        projection: from the read-out to the space of the texts; None where the read-out lies in it (SigLIP).
    """

    projection: Tensor

    def __init__(
        self,
        texts: Float[Tensor, "classes d_embed"],
        scale: float,
        bias: float = 0.0,
        projection: Float[Tensor, "d_embed d_readout"] | None = None,
    ) -> None:
        if projection is None:
            projection = torch.eye(texts.shape[1], dtype=texts.dtype, device=texts.device)
        super().__init__(projection.shape[1], len(texts), device=texts.device, dtype=texts.dtype)
        self.register_buffer("projection", projection.detach().clone())
        with torch.no_grad():
            self.weight.copy_(scale * (texts @ projection))
            self.bias.fill_(bias)

    def forward(self, input: Float[Tensor, "*rows d_readout"]) -> Float[Tensor, "*rows classes"]:
        """Logits of `input`."""
        return text_logits(input, self.weight, self.bias, self.projection)


def text_logits(
    readout: Float[Tensor, "*rows d_readout"],
    weight: Float[Tensor, "classes d_readout"],
    bias: Float[Tensor, " classes"],
    projection: Float[Tensor, "d_embed d_readout"],
) -> Float[Tensor, "*rows classes"]:
    """What a `TextHead` of these weights gives."""
    return F.linear(readout, weight) / embedding_length(readout, projection) + bias


def embedding_length(
    readout: Float[Tensor, "*rows d_readout"], projection: Float[Tensor, "d_embed d_readout"]
) -> Float[Tensor, "*rows 1"]:
    """How long the image embedding of `readout` is."""
    return F.linear(readout, projection).norm(dim=-1, keepdim=True)
