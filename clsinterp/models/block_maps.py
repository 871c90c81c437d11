"""The linear maps and scales inside a block, whatever a family calls them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


# First and last linear map of an MLP: what names them in most families, gated ones first.
MLP_MAPS = (("gate_proj", "down_proj"), ("fc1", "fc2"), ("up_proj", "down_proj"), ("weights_in", "weights_out"))
QKV = "qkv"  # the letters that queries, keys and values go by


def by_head(x: Tensor, n_heads: int) -> Tensor:
    """The last axis taken apart into heads: (..., head * d_head) to (..., head, d_head)."""
    return x.unflatten(-1, (n_heads, -1))


def edit_qkv(
    model: Traced, i: int, wanted: Collection[str], visit: Callable[[str, Tensor], tuple[Tensor, bool]]
) -> dict[str, Tensor]:
    """Read queries, keys and values of block `i` inside a trace, and write back those that `visit` edits.

    The one place that knows whether they are made by a map each or side by side by one (``Family.qkv``).

    Args:
        model: the model being traced.
        i: the block.
        wanted: which of the letters of `QKV`.
        visit: called with (letter, (batch, token, head, d_head)) in forward order; gives the value from there on, and
            whether it was edited.

    Returns:
        Letter -> value (batch, token, head, d_head) after the visit.
    """
    attn: Any = model.blocks[i].attn
    if len(model.family.qkv) == 1:
        fused = getattr(attn, model.family.qkv[0])
        parts = dict(zip(QKV, by_head(fused.output.unflatten(-1, (3, -1)), model.n_heads).unbind(-3), strict=True))
        done = {x: visit(x, parts[x]) for x in QKV if x in wanted}
        if any(edited for _, edited in done.values()):
            now = [done[x][0] if x in done else parts[x] for x in QKV]
            fused.output = torch.stack(now, dim=-3).flatten(-3)
        return {x: value for x, (value, _) in done.items()}
    found = {}
    for x, name in zip(QKV, model.family.qkv, strict=True):
        if x in wanted:
            envoy = getattr(attn, name)
            found[x], edited = visit(x, by_head(envoy.output, model.n_heads))
            if edited:
                envoy.output = found[x].flatten(2)
    return found


def attn_output(model: Traced, i: int) -> Tensor:
    """What block `i`'s attention gives, (batch, token, d_model), inside a trace; before LayerScale."""
    output = model.blocks[i].attn.output
    return output if isinstance(output, Tensor) else output[0]


def head_results(model: Traced, i: int, z: Tensor) -> Tensor:
    """What each head of block `i` adds to the residual stream, (batch, token, head, d_model), after LayerScale."""
    weight = by_head(out_map(model, i).weight, model.n_heads)  # (d_model, head, d_head)
    return torch.einsum("bthd,mhd->bthm", z, weight) * layer_scale(model, i, "scale1")


def attn_bias(model: Traced, i: int) -> Tensor:
    """What the output bias of block `i`'s attention adds to the residual stream, (d_model,)."""
    out = out_map(model, i)
    bias = torch.zeros_like(out.weight[:, 0]) if out.bias is None else out.bias
    return bias * layer_scale(model, i, "scale1")


def mlp_maps(model: Traced, i: int) -> tuple[str, str]:
    """Names of the first (gate, if gated) and last linear map in block `i`'s MLP."""
    mlp = model.blocks[i].mlp._module
    return model.family.mlp_maps or next(maps for maps in MLP_MAPS if all(hasattr(mlp, name) for name in maps))


def scaled(model: Traced, i: int, which: str, x: Tensor) -> Tensor:
    """`x` times a LayerScale of block `i`; `x` itself where there is none."""
    return x * layer_scale(model, i, which) if getattr(model.family, which) else x


def layer_scale(model: Traced, i: int, which: str) -> Tensor | float:
    """The LayerScale vector of block `i` (`which`: ``scale1`` after attention, ``scale2`` after the MLP), or 1.0."""
    path = getattr(model.family, which)
    return attrgetter(path)(model.blocks[i]._module) if path else 1.0


def out_map(model: Traced, i: int) -> nn.Linear:
    """The linear map from z to what block `i`'s attention gives."""
    return getattr(model.blocks[i].attn._module, model.family.attn_out)
