"""The sizes of a model under the names that TransformerLens gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clsinterp.models.block_maps import mlp_maps

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


@dataclass(frozen=True)
class Config:
    """Sizes and settings of a model.

    Attributes:
        model_name: hub id, folder or ``zoo/NAME``; empty for a loaded module.
        family: the family's name here.
        n_layers, n_heads, d_model, d_head, d_mlp: of the blocks.
        n_ctx: tokens at the checkpoint's own image size.
        n_prefix: those before the first patch.
        image_size, patch_size: in pixels.
        n_classes: of the model's own classifier; None without one.
        act_fn: of the MLP.
        eps: of the blocks' norms.
        dtype, device: of the weights.
    """

    model_name: str
    family: str
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_ctx: int
    n_prefix: int
    image_size: int
    patch_size: int
    n_classes: int | None
    act_fn: str
    eps: float | None
    dtype: torch.dtype
    device: torch.device

    @property
    def d_vocab_out(self) -> int | None:
        """TransformerLens's name for `n_classes`."""
        return self.n_classes

    @classmethod
    def of(cls, model: Traced) -> Config:
        """That of `model`."""
        block: Any = model.blocks[0]._module
        sizes = model.sizes
        mlp: Any = model.blocks[0].mlp._module
        weight = getattr(mlp, mlp_maps(model, 0)[1]).weight
        acts = (getattr(mlp, name, None) for name in ("act", "act_fn", "activation_fn", "activation"))
        act: Any = next((found for found in acts if found is not None), "")
        return cls(
            model_name=str(model.checkpoint.source or ""),
            family=model.family.name,
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            d_model=model.d_model,
            d_head=model.d_model // model.n_heads,
            d_mlp=weight.shape[1],
            n_ctx=model.layout.n_prefix
            + math.prod(side // patch for side, patch in zip(sizes.image, sizes.patch, strict=True)),
            n_prefix=model.layout.n_prefix,
            image_size=sizes.image[0],
            patch_size=sizes.patch[0],
            n_classes=model.heads[0].out_features if model.checkpoint.head_is_own and model.heads else None,
            act_fn=act if isinstance(act, str) else type(act).__name__,
            eps=getattr(getattr(block, model.family.ln1), "eps", None),
            dtype=weight.dtype,
            device=weight.device,
        )
