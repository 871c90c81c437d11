"""How families form attention scores from queries and keys: what a row's ``scores`` can be.

Each takes the attention module, queries and keys (batch, head, token, d_head) as their maps give them, and the positional and
named arguments that the module was called with; it gives the scores (batch, head, query, key). Queries may be of the first
tokens alone, before the patches. Travels to a server, see
`clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


def dot_product(
    attn: nn.Module, q: Tensor, k: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Float[Tensor, "batch head query key"]:
    """Scaled dot products, with the additive bias the module was given (BEiT's relative positions)."""
    scores = (q @ k.mT).mul_(q.shape[-1] ** -0.5)
    bias = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    return scores if bias is None else scores + bias[..., : q.shape[-2], :]


def rotary_dinov3(
    attn: nn.Module, q: Tensor, k: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Float[Tensor, "batch head query key"]:
    """`dot_product` of queries and keys that DINOv3 turns by the patches' positions."""
    from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

    q, k = apply_rotary_pos_emb(q, k, *kwargs["position_embeddings"])
    return dot_product(attn, q, k, args, kwargs)
