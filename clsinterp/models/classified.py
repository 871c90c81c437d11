"""A backbone with a classifier on its read-outs: what a bare checkpoint becomes once it is given one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from clsinterp.models.family import Family
from clsinterp.models.readouts import MAP, features
from clsinterp.models.tokens import TokenLayout

if TYPE_CHECKING:
    from jaxtyping import Float

BACKBONE, HEAD = "backbone", "head"


class Classified(nn.Module):
    """`backbone`, whose read-outs side by side are what `head` reads.

    Args:
        backbone: a model without a classifier; its weights are shared, not copied.
        head: from (batch, d_readout) to (batch, class).
        family: the backbone's row.
        layout: its tokens.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear, family: Family, layout: TokenLayout) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.family, self.layout = family, layout

    @property
    def config(self) -> Any:
        """The backbone's, if it has one."""
        return getattr(self.backbone, "config", None)

    def forward(self, images: Float[Tensor, "batch channel height width"], **kwargs: Any) -> Any:
        """The logits, in the form of the backbone's library."""
        output = self.backbone(images, **kwargs)
        logits = self.head(self._readout(output))
        return logits if isinstance(output, Tensor) else ImageClassifierOutput(logits=logits)

    def _readout(self, output: Any) -> Tensor:
        family = self.family
        if isinstance(output, Tensor):
            return output if output.ndim == 2 else features(self, output)
        if MAP in family.readouts or (
            family.lens_norm and not family.ln_final
        ):  # pooled, and perhaps normed after that
            return output.pooler_output
        return features(self, output.last_hidden_state)


def classified(
    backbone: nn.Module, weight: Float[Tensor, "classes d_readout"], bias: Tensor, family: Family, layout: TokenLayout
) -> tuple[Classified, Family]:
    """`backbone` with that classifier, and the row that describes it."""
    if hasattr(backbone, "unprojected"):  # open_clip's gives the image embedding, which is made of the read-out
        backbone = cast(Any, backbone).unprojected()
    return Classified(backbone, linear(weight, bias, next(backbone.parameters())), family, layout), family.inside(
        BACKBONE, (HEAD,)
    )


def linear(weight: Float[Tensor, "classes d"], bias: Float[Tensor, " classes"], like: Tensor) -> nn.Linear:
    """The linear map of `weight` and `bias`, with the device and dtype of `like`."""
    made = nn.Linear(weight.shape[1], weight.shape[0], device=like.device, dtype=like.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made
