"""Attention knock-out: some tokens can't read some others in a block.

The scores of what may not be read are minus infinity before the softmax, so the rest of a row is renormalised, and a token that
may read itself only gets its own value vector. Rows of attention do not depend on each other: only those that a cut touches are
computed again, from the block's own queries, keys and values; the block runs as it always does, fused kernels and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.models.block_maps import by_head

if TYPE_CHECKING:
    from clsinterp.models.tokens import TokenLayout
    from clsinterp.models.traced import Traced

Span = tuple[int, int | None]  # tokens from .. up to, not including; None: to the end


@dataclass(frozen=True)
class Cut:
    """Who may not read whom.

    Attributes:
        hidden: (readers, read) spans of tokens: the first may not read the second, whatever else is said of them; but a token
            can always read itself.
    """

    hidden: tuple[tuple[Span, Span], ...]

    def visible(self, n: int) -> Tensor:
        """For `n` tokens: (reader, read), whether it may be read."""
        seen = torch.ones(n, n, dtype=torch.bool)
        for readers, read in self.hidden:
            seen[slice(*readers), slice(*read)] = False
        return seen | torch.eye(n, dtype=torch.bool)


def reads_nothing(layout: TokenLayout, keep: Sequence[str] = ()) -> Cut:
    """The CLS token, and DeiT's distillation token, reads nothing but itself and the groups `keep`.

    Raises:
        RequestError: the model has no CLS token, or none of `keep`.
    """
    layout.index("cls")
    rows = [layout.slices[group] for group in ("cls", "distill") if group in layout.slices]
    for group in keep:
        layout.index(group)
    others = [where for group, where in layout.slices.items() if group not in keep]
    return Cut(tuple(((r.start, r.stop), (o.start, o.stop)) for r in rows for o in others))


def is_not_read(layout: TokenLayout, by: str = "patches") -> Cut:
    """The tokens `by` can't read the CLS token, nor DeiT's distillation token.

    Raises:
        RequestError: the model has no CLS token.
    """
    layout.index("cls")
    read = [layout.slices[group] for group in ("cls", "distill") if group in layout.slices]
    rows = layout.slices[by]
    return Cut(tuple(((rows.start, rows.stop), (r.start, r.stop)) for r in read))


def cut_block(model: Traced, layer: int, rows: Sequence[tuple[slice, Cut]]) -> None:
    """Inside a trace, in block `layer`: attention of the batch's `rows` under their cuts; what it gives goes on in the block."""
    attn = model.blocks[layer].attn
    bias, rope = _inputs(attn)
    queries, keys, values = _queries_keys_values(model, attn)
    out = getattr(attn, model.family.attn_out)
    z = by_head(out.input, model.n_heads).clone()  # (batch, token, head, d_head)
    for here, cut in rows:
        visible = cut.visible(z.shape[1]).to(z.device)
        touched = (~visible).any(dim=1).nonzero().flatten()
        q, k, v = (x[here].transpose(1, 2) for x in (queries, keys, values))  # (batch, head, token, d_head)
        if rope is not None:
            from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

            q, k = apply_rotary_pos_emb(q, k, *rope)
        mask = visible[touched]
        if bias is not None:  # (1 or batch, head, token, token), added to the scores
            bias_here = bias if len(bias) == 1 else bias[here]
            mask = bias_here[:, :, touched].masked_fill(~mask, -torch.inf)
        # (batch, head, touched, d_head)
        new = F.scaled_dot_product_attention(q[:, :, touched], k, v, attn_mask=mask)
        rows_of_z = z[here].clone()
        rows_of_z[:, touched] = new.transpose(1, 2)
        z[here] = rows_of_z
    out.input = z.flatten(2)


def refuse_uncuttable(model: Traced) -> None:
    """Refuse a model whose attention has no queries, keys and values of its own to cut.

    Raises:
        RequestError: with the family's name.
    """
    attn = model.blocks[0].attn._module
    if not all(hasattr(attn, f"{x}_proj") for x in "qkv"):
        raise RequestError(
            f"a {model.family.name} model computes queries, keys and values together; knock-outs need them apart."
        )


# -- what differs between families ---------------------------------------------------------------------------------


def _inputs(attn: Any) -> tuple[Tensor | None, Any]:
    """The additive bias on the scores (BEiT's relative positions), and DINOv3's rotary embeddings."""
    args, kwargs = attn.inputs
    bias = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    return bias, kwargs.get("position_embeddings")


def _queries_keys_values(model: Traced, attn: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token, (batch, token, head, d_head), as the block's maps give them."""
    q, k, v = (by_head(getattr(attn, f"{x}_proj").output, model.n_heads) for x in "qkv")
    return q, k, v
