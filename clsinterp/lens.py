"""The logit lens: the classifier applied to tokens of any layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from clsinterp.families import Family
from clsinterp.readout import Head

if TYPE_CHECKING:  # annotations stay text: what travels to a server must not need the package there
    from jaxtyping import Float


def lens_readout(family: Family, group: str = "cls") -> str:
    """The read-out whose part of the classifier the lens uses on tokens of `group`.

    A group's own read-out where it has one (DeiT's distillation head on the distillation token, DINOv2's CLS half on
    the CLS token, its patch half on patches), else the first.
    """
    wanted = "patch_mean" if group == "patches" else group
    return wanted if wanted in family.readouts else family.readouts[0]


def lens_logits(
    tokens: Float[Tensor, "*rows d_model"], head: Head, readout: str, norm: nn.LayerNorm | None
) -> Float[Tensor, "*rows classes"]:
    """Logits that the classifier gives to `tokens` of the residual stream.

    Args:
        tokens: any tokens of any layer.
        head: the classifier.
        readout: which part of it reads them, see `lens_readout`.
        norm: the final norm to apply first (Vilas et al. 2023), or None (the published note; CLIP has none).
    """
    if norm is not None:
        # Functional, not norm(tokens): inside a trace a call of the module would count as the model reaching it.
        tokens = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return head.read(tokens, readout)
