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
        value = module.position_embedding.weight.unsqueeze(0)
    elif getattr(module, "position_embeddings", None) is None:  # BEiT, DINOv3
        return none(model, size, like)
    else:
        value = module.position_embeddings
        registers = model.layout.slices.get("registers")
        n_registers = registers.stop - registers.start if registers else 0
        if value.shape[1] != like.shape[1] - n_registers:  # another image size than the checkpoint was trained at
            value = module.interpolate_pos_encoding(like[:, n_registers:], *size)
        if registers:  # they stand after the CLS token and have no position
            value = torch.cat([value[:, :1], value.new_zeros(1, n_registers, value.shape[2]), value[:, 1:]], dim=1)
    return value.expand_as(like).clone()


def one_table(model: Any, size: Any, like: Tensor) -> Float[Tensor, "batch token d_model"]:
    """A table with a row for every token, the class token's first (open_clip)."""
    module: Any = model._module.get_submodule(model.family.embed)
    return module.positional_embedding.to(like.dtype).expand_as(like).clone()
