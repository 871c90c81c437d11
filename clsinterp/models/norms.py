"""A norm's arithmetic, whichever kind it is: LayerNorm with or without bias, or RMSNorm.

Travels to a server, see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


def subtracts_mean(norm: nn.Module) -> bool:
    """Whether `norm` centres its input (LayerNorm) or not (RMSNorm)."""
    return isinstance(norm, nn.LayerNorm) or "rms" not in type(norm).__name__.lower()


def centred(norm: nn.Module, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """What `norm` divides: `x`, less its mean where the norm subtracts it."""
    return x - x.mean(-1, keepdim=True) if subtracts_mean(norm) else x


def denominator(norm: nn.Module, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
    """What `norm` divides `x` by."""
    # One pass over memory in the place of two, of which the squares would fill as much again.
    length = torch.linalg.vector_norm(centred(norm, x), dim=-1, keepdim=True)
    return ((length * x.shape[-1] ** -0.5).square() + epsilon(norm)).sqrt()


def epsilon(norm: Any) -> float:
    """What is added under the root."""
    found = getattr(norm, "eps", None)
    return found if found is not None else norm.variance_epsilon


def rescaled(norm: Any, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """`x` times the norm's weight, plus its bias; either may be lacking."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def normalised(norm: Any, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """What `norm` gives for `x`, without a call of the module, which a trace would count as the model reaching it."""
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return rescaled(norm, centred(norm, x) / denominator(norm, x))
