"""Attention pooling of one token by itself: what a logit lens reads through where the read-out is ``map``.

A query that attends to a single token takes all of that token's value, whatever query and key are. Travels to a server, see
`clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.models.norms import normalised

if TYPE_CHECKING:
    from jaxtyping import Float


def alone(pooling: nn.Module, tokens: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """What `pooling` gives for a sequence of one token, for each of `tokens`.

    No module in `pooling` is called as such, which a trace would count as the model reaching it.

    Raises:
        RequestError: attention pooling of a kind that is not known here.
    """
    part: Any = pooling
    if hasattr(part, "attention"):  # transformers: SigLIP
        attention, norm = part.attention, part.layernorm
        bias = None if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)[2]
        value = F.linear(tokens, attention.in_proj_weight.chunk(3)[2], bias)
        pooled, activation = _linear(attention.out_proj, value), part.mlp.activation_fn
    elif hasattr(part, "kv") and part.mlp is not None and part.pos_embed is None:  # timm
        norm = part.norm
        pooled, activation = _linear(part.proj, _linear(part.kv, tokens).chunk(2, dim=-1)[1]), part.mlp.act
    else:
        raise RequestError(f"the lens does not know attention pooling by {type(pooling).__name__}; leave it out.")
    x = pooled if isinstance(norm, nn.Identity) else normalised(norm, pooled)
    hidden = activation.forward(_linear(part.mlp.fc1, x))
    return pooled + _linear(part.mlp.fc2, hidden)


def _linear(module: Any, x: Tensor) -> Tensor:
    return F.linear(x, module.weight, module.bias)
