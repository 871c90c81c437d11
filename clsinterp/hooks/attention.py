"""Attention as maps over the image: from the CLS token to patches, and rolled out through the layers."""

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from clsinterp.errors import RequestError

if TYPE_CHECKING:
    from clsinterp.hooks.hooked import Hooked


@torch.no_grad()
def patterns(model: "Hooked", images: Any) -> Float[Tensor, "layer batch head query key"]:
    """The attention pattern of every block."""
    _, cache = model.run_with_cache(images, lambda name: name.endswith("hook_pattern"))
    return cache.stack_activation("pattern")


def cls_attention(model: "Hooked", images: Any) -> Float[Tensor, "layer batch head rows columns"]:
    """How much the CLS token attends to each patch, by layer and head. Each map sums to the share that goes to patches.

    Raises:
        RequestError: a model without a CLS token.
    """
    pixels = model.pixels(images)
    query = model.layout.index("cls")
    rows, _ = model.patch_grid(pixels)
    to_patches = patterns(model, pixels)[:, :, :, query, model.layout.index("patches")]
    return rearrange(to_patches, "l b h (r c) -> l b h r c", r=rows)


def rollout(model: "Hooked", images: Any, residual: float = 0.5) -> Float[Tensor, "batch token token"]:
    """Attention rollout (Abnar and Zuidema 2020): patterns averaged over heads, mixed with the identity, multiplied up.

    Args:
        model: the model.
        images: PIL images or pixels.
        residual: weight of the identity, which stands for the residual connection.

    Returns:
        Row i: how much of each input token is in token i after the last block; rows sum to 1.
    """
    if not 0 <= residual < 1:
        raise RequestError(f"residual {residual} was given; at least 0 and below 1 is expected.")
    by_layer = patterns(model, images).mean(dim=2)
    identity = torch.eye(by_layer.shape[-1], device=by_layer.device, dtype=by_layer.dtype)
    total = identity.expand_as(by_layer[0])
    for pattern in by_layer:
        total = (residual * identity + (1 - residual) * pattern) @ total
    return total


def rollout_map(model: "Hooked", images: Any, residual: float = 0.5) -> Float[Tensor, "batch rows columns"]:
    """The CLS token's row of `rollout` over the patches.

    Raises:
        RequestError: a model without a CLS token.
    """
    pixels = model.pixels(images)
    query = model.layout.index("cls")
    rows, _ = model.patch_grid(pixels)
    return rearrange(
        rollout(model, pixels, residual)[:, query, model.layout.index("patches")], "b (r c) -> b r c", r=rows
    )
