"""What happens inside timm's modules where they call no module that could be read: what the rows of timm point to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clsinterp.models.norms import normalised

if TYPE_CHECKING:
    from jaxtyping import Float


def scores(
    attn: Any, q: Tensor, k: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Float[Tensor, "batch head query key"]:
    """Attention scores: queries and keys normed and turned by position where the model does so, relative positions added.

    Args:
        attn: timm's ``Attention``, ``AttentionRope``, ``EvaAttention``, or BEiT's.
        q, k: (batch, head, token, d_head), as the linear maps give them; queries may be of the first tokens alone.
        args, kwargs: what the module was called with.
    """
    q, k = _normed(attn, "q_norm", q), _normed(attn, "k_norm", k)
    if (rope := kwargs.get("rope")) is not None:
        q, k = (_turned(attn, x, rope) for x in (q, k))
    found = q @ k.mT * attn.scale
    for bias in (_relative_positions(attn), kwargs.get("shared_rel_pos_bias")):
        found = found if bias is None else found + bias[..., : q.shape[-2], :]
    return found


def _normed(attn: nn.Module, name: str, x: Tensor) -> Tensor:
    norm = getattr(attn, name, None)
    return x if norm is None or isinstance(norm, nn.Identity) else normalised(norm, x)


def _turned(attn: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Patches turned by their rotary positions; tokens before them have none."""
    from timm.layers import apply_rot_embed_cat

    n = attn.num_prefix_tokens
    if x.shape[2] <= n:
        return x
    return torch.cat([x[:, :, :n], apply_rot_embed_cat(x[:, :, n:], rope, half=attn.rotate_half)], dim=2)


def _relative_positions(attn: Any) -> Tensor | None:
    """BEiT's bias on the scores, (1, head, query, key); None where a block has none of its own."""
    table = getattr(attn, "relative_position_bias_table", None)
    return None if table is None else table[attn.relative_position_index].permute(2, 0, 1).unsqueeze(0)


def after_mixing(
    attn: Any, z: Float[Tensor, "batch token head d_head"], args: tuple[Any, ...]
) -> Float[Tensor, "batch token head d_head"]:
    """What enters the output map, from the values mixed by the pattern: normed and gated where the model does so."""
    flat = _normed(attn, "norm", z.flatten(-2))
    gate = getattr(attn, "gate", None)
    if gate is not None:
        flat = flat * nn.functional.linear(args[0], gate.weight, gate.bias).sigmoid()
    return flat.view_as(z)


def positions(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """The position embeddings that a timm model adds, resampled as it does where images are of another size.

    Args:
        model: the model being traced.
        size: rows and columns of pixels.
        like: tokens (batch, token, d_model).
    """
    path = model.family.blocks.rpartition("blocks")[0].removesuffix(
        "."
    )  # where a head was put on it, it is one level down
    module, n_prefix = model._module.get_submodule(path), model.layout.n_prefix
    table = module.pos_embed
    if table is None:
        return torch.zeros_like(like)
    without = bool(getattr(module, "no_embed_class", False))  # tokens before the patches have no position
    if getattr(module, "dynamic_img_size", False):
        from timm.layers import resample_abs_pos_embed

        patches = module.patch_embed
        table = resample_abs_pos_embed(
            table,
            new_size=list(patches.dynamic_feat_size(tuple(size))),
            old_size=list(patches.grid_size),
            num_prefix_tokens=0 if without else n_prefix,
        )
    if without:
        table = torch.cat([table.new_zeros(1, n_prefix, table.shape[2]), table], dim=1)
    return table.expand_as(like).clone()
