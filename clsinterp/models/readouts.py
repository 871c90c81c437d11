"""Read-outs that are no token of their own: tokens pooled. Travels to a server, see `clsinterp.remote.travelling`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.models.tokens import TokenLayout, Where

# Read-out -> the tokens it is the mean of; every other read-out is the token group of its name, but for MAP.
POOLED = {"patch_mean": "patches", "token_mean": "all"}
MAP = "map"  # attention pooling: the output of the row's ``pooling`` module


def tokens_of(layout: TokenLayout, readout: str) -> Where:
    """What selects the tokens that `readout` reads."""
    group = POOLED.get(readout, readout)
    return slice(None) if group == "all" else layout.index(group)


def pool(tokens: Tensor, layout: TokenLayout, readout: str) -> Float[Tensor, "*rows d_model"]:
    """`readout` of `tokens` (.., token, d_model)."""
    found = tokens[..., tokens_of(layout, readout), :]
    return found.mean(dim=-2) if readout in POOLED else found


def features(model: Any, tokens: Tensor) -> Float[Tensor, "batch d_readout"]:
    """All read-outs of a model's row side by side, from its last tokens (batch, token, d_model)."""
    return torch.cat([pool(tokens, model.layout, name) for name in model.family.readouts], dim=-1)
