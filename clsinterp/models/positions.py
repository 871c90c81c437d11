"""Position embeddings as added to the tokens: what a row's ``positions`` can be.

Each takes the model, rows and columns of pixels, and tokens to be shaped like (batch, token, d_model). Travels to a server,
see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def none(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """Zeros: positions enter inside attention (relative, rotary)."""
    return torch.zeros_like(like)


def embedded(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """What an embedding module of `transformers` adds, interpolated as it does; zeros where it has none."""
    module: Any = model._module.get_submodule(model.family.embed)
    if hasattr(module, "position_embedding"):
        table = module.position_embedding  # BLIP has the tensor itself there
        value = table if isinstance(table, Tensor) else table.weight.unsqueeze(0)
    elif getattr(module, "position_embeddings", None) is None:  # BEiT, DINOv3
        return none(model, size, like)
    else:
        value = module.position_embeddings
        registers = model.layout.slices.get("registers")
        n_registers = registers.stop - registers.start if registers and registers.start else 0  # Pixio's have positions
        if value.shape[1] != like.shape[1] - n_registers:  # another image size than the checkpoint was trained at
            value = module.interpolate_pos_encoding(like[:, n_registers:], *size)
        if n_registers:  # they stand after the CLS token and have no position
            value = torch.cat([value[:, :1], value.new_zeros(1, n_registers, value.shape[2]), value[:, 1:]], dim=1)
    return value.expand_as(like).clone()


def one_table(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """A table with a row for every token, the class token's first (open_clip)."""
    module: Any = model._module.get_submodule(model.family.embed)
    return module.positional_embedding.to(like.dtype).expand_as(like).clone()


def aimv2(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """AIMv2's: a table, or sines and cosines of the place for its native-resolution checkpoints."""
    module: Any = model._module.get_submodule(model.family.embed)
    if hasattr(module, "position_embedding"):
        return embedded(model, size, like)
    from transformers.models.aimv2.modeling_aimv2 import build_2d_sinusoidal_position_embedding as built

    rows, columns = (side // patch for side, patch in zip(size, model.sizes.patch, strict=True))
    value = built(height=rows, width=columns, embed_dim=like.shape[-1], device=like.device, dtype=like.dtype)
    half = value.shape[-1] // 2  # columns first, as in its training
    return torch.cat([value[..., half:], value[..., :half]], dim=-1).expand_as(like).clone()
