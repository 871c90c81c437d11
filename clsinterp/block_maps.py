"""The linear maps and scales inside a block, whatever a family calls them."""

from operator import attrgetter
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from clsinterp.model import VisionModel


# First and last linear map of an MLP: what names them in every family, gated ones first.
MLP_MAPS = (("gate_proj", "down_proj"), ("fc1", "fc2"), ("up_proj", "down_proj"))


def head_results(model: "VisionModel", i: int, z: Tensor) -> Tensor:
    """What each head of block `i` adds to the residual stream, (batch, token, head, d_model), after LayerScale."""
    weight = _out_map(model, i).weight  # (d_model, head * d_head)
    by_head = rearrange(weight, "m (h d) -> h d m", h=model.n_heads)
    return torch.einsum("bthd,hdm->bthm", z, by_head) * layer_scale(model, i, "scale1")


def attn_bias(model: "VisionModel", i: int) -> Tensor:
    """What the output bias of block `i`'s attention adds to the residual stream, (d_model,)."""
    bias = _out_map(model, i).bias
    return (torch.zeros_like(_out_map(model, i).weight[:, 0]) if bias is None else bias) * layer_scale(
        model, i, "scale1"
    )


def mlp_maps(mlp: nn.Module) -> tuple[str, str]:
    """Names of an MLP's first (gate, if gated) and last linear map."""
    return next(maps for maps in MLP_MAPS if all(hasattr(mlp, name) for name in maps))


def layer_scale(model: "VisionModel", i: int, which: str) -> Tensor | float:
    """The LayerScale vector of block `i` (`which`: ``scale1`` after attention, ``scale2`` after the MLP), or 1.0."""
    path = getattr(model.family, which)
    return attrgetter(path)(model.blocks[i]._module) if path else 1.0


def _out_map(model: "VisionModel", i: int) -> nn.Linear:
    return getattr(model.blocks[i].attn._module, model.family.attn_out)
