"""The linear maps and scales inside a block, whatever a family calls them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


# First and last linear map of an MLP: what names them in every family, gated ones first.
MLP_MAPS = (("gate_proj", "down_proj"), ("fc1", "fc2"), ("up_proj", "down_proj"))


def by_head(x: Tensor, n_heads: int) -> Tensor:
    """The last axis taken apart into heads: (..., head * d_head) to (..., head, d_head)."""
    return x.unflatten(-1, (n_heads, -1))


def head_results(model: Traced, i: int, z: Tensor) -> Tensor:
    """What each head of block `i` adds to the residual stream, (batch, token, head, d_model), after LayerScale."""
    weight = by_head(_out_map(model, i).weight, model.n_heads)  # (d_model, head, d_head)
    return torch.einsum("bthd,mhd->bthm", z, weight) * layer_scale(model, i, "scale1")


def attn_bias(model: Traced, i: int) -> Tensor:
    """What the output bias of block `i`'s attention adds to the residual stream, (d_model,)."""
    bias = _out_map(model, i).bias
    return (torch.zeros_like(_out_map(model, i).weight[:, 0]) if bias is None else bias) * layer_scale(
        model, i, "scale1"
    )


def mlp_maps(mlp: nn.Module) -> tuple[str, str]:
    """Names of an MLP's first (gate, if gated) and last linear map."""
    return next(maps for maps in MLP_MAPS if all(hasattr(mlp, name) for name in maps))


def layer_scale(model: Traced, i: int, which: str) -> Tensor | float:
    """The LayerScale vector of block `i` (`which`: ``scale1`` after attention, ``scale2`` after the MLP), or 1.0."""
    path = getattr(model.family, which)
    return attrgetter(path)(model.blocks[i]._module) if path else 1.0


def _out_map(model: Traced, i: int) -> nn.Linear:
    return getattr(model.blocks[i].attn._module, model.family.attn_out)
