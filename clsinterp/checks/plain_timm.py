"""The slow twin of the hook names for timm's blocks, spelled out in plain torch; see `clsinterp.checks.plain_hooks`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import interpolate

At = Callable[[str, Tensor], Tensor]


def block(part: Any, h: Tensor, n_heads: int, kwargs: dict[str, Any], at: At) -> Tensor:
    """One block of timm; `at` sees, and may change, the value at each name.

    Args:
        part: the block.
        h: the stream that enters it, (batch, token, d_model).
        n_heads: attention heads.
        kwargs: what the block is called with: rotary positions, or the bias that all blocks share.
        at: called with the name inside the block and the value.
    """
    pre = at("hook_resid_pre", h)
    attended = _attention(part.attn, _norm(part.norm1, pre, "ln1", at), n_heads, kwargs, at)
    first, second = (_scale(part, *names) for names in (("ls1", "gamma_1"), ("ls2", "gamma_2")))
    weight, bias = part.attn.proj.weight, part.attn.proj.bias
    width = attended.shape[-1]
    by_head = [attended[:, :, i] @ weight[:, i * width : (i + 1) * width].T for i in range(n_heads)]
    result = at("attn.hook_result", torch.stack(by_head, dim=2) * first)
    attn_out = at("hook_attn_out", result.sum(2) + (0 if bias is None else bias) * first)
    mid = at("hook_resid_mid", pre + attn_out)
    mlp_out = at("hook_mlp_out", _mlp(part.mlp, _norm(part.norm2, mid, "ln2", at), at) * second)
    return at("hook_resid_post", mid + mlp_out)


def _norm(norm: Any, x: Tensor, prefix: str, at: At) -> Tensor:
    out = scaled(norm, x, lambda scale: at(f"{prefix}.hook_scale", scale))
    return at(f"{prefix}.hook_normalized", out)


def scaled(norm: Any, x: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """A LayerNorm or an RMSNorm with its denominator edited."""
    if not isinstance(norm, nn.LayerNorm):
        return x / edit(torch.sqrt((x**2).mean(-1, keepdim=True) + norm.eps)) * norm.weight
    scale = torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + norm.eps)
    return (x - x.mean(-1, keepdim=True)) / edit(scale) * norm.weight + norm.bias


def _scale(part: Any, module: str, vector: str) -> Any:
    found = getattr(getattr(part, module, None), "gamma", None)
    found = getattr(part, vector, None) if found is None else found
    return 1.0 if found is None else found


def _attention(attn: Any, x: Tensor, n_heads: int, kwargs: dict[str, Any], at: At) -> Tensor:
    """Queries to z, (batch, token, head, d_head)."""
    if attn.qkv is None:
        maps = [(getattr(attn, f"{n}_proj").weight, getattr(attn, f"{n}_proj").bias) for n in "qkv"]
    else:
        biases = [None] * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
        maps = list(zip(attn.qkv.weight.chunk(3), biases, strict=True))
    q, k, v = (
        at(f"attn.hook_{n}", F.linear(x, *both).unflatten(2, (n_heads, -1))).transpose(1, 2)
        for n, both in zip("qkv", maps, strict=True)
    )
    if isinstance(getattr(attn, "q_norm", None), nn.Module):
        q, k = attn.q_norm(q), attn.k_norm(k)
    if kwargs.get("rope") is not None:
        q, k = (_rotate(y, kwargs["rope"], attn.rotate_half) for y in (q, k))
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if getattr(attn, "relative_position_bias_table", None) is not None:
        scores = scores + _relative(attn, n_tokens=x.shape[1])
    if kwargs.get("shared_rel_pos_bias") is not None:
        scores = scores + kwargs["shared_rel_pos_bias"]
    scores = at("attn.hook_attn_scores", scores)
    pattern = at("attn.hook_pattern", torch.softmax(scores, -1))
    z = (pattern @ v).transpose(1, 2)
    if isinstance(getattr(attn, "norm", None), nn.Module):
        z = attn.norm(z.flatten(2)).view_as(z)
    return at("attn.hook_z", z)


def _rotate(y: Tensor, rope: Tensor, half: bool) -> Tensor:
    """Patches turned by an angle for each pair of coordinates; tokens before them stay."""
    sin, cos = rope.chunk(2, dim=-1)
    n_prefix = y.shape[2] - rope.shape[-2]
    patches = y[:, :, n_prefix:]
    if half:
        left, right = patches.chunk(2, dim=-1)
        turned = torch.cat([-right, left], dim=-1)
    else:
        turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([y[:, :, :n_prefix], patches * cos + turned * sin], dim=2)


def _relative(attn: Any, n_tokens: int) -> Tensor:
    index = attn.relative_position_index.flatten()
    return attn.relative_position_bias_table[index].view(n_tokens, n_tokens, -1).permute(2, 0, 1)


def _mlp(mlp: Any, x: Tensor, at: At) -> Tensor:
    if hasattr(mlp, "fc1_g"):
        post = F.silu(at("mlp.hook_pre", mlp.fc1_g(x))) * mlp.fc1_x(x)
    elif hasattr(mlp, "gate_last"):
        gate, value = at("mlp.hook_pre", mlp.fc1(x)).chunk(2, dim=-1)
        post = F.silu(gate) * value
    else:
        post = mlp.act(at("mlp.hook_pre", mlp.fc1(x)))
    return mlp.fc2(at("mlp.hook_post", mlp.norm(post)))


def positions(module: Any, like: Tensor, n_prefix: int) -> Tensor:
    """Position embeddings as added to the tokens, interpolated where a square image is of another size than in training."""
    table = module.pos_embed
    if table is None:
        return torch.zeros_like(like)
    first = table[:, : 0 if getattr(module, "no_embed_class", False) else n_prefix]
    grid, n_patches = table[:, first.shape[1] :], like.shape[1] - n_prefix
    if grid.shape[1] != n_patches:
        sides = module.patch_embed.grid_size
        wanted = (round(n_patches**0.5),) * 2
        square = grid.mT.unflatten(2, sides).float()
        grid = interpolate(square, wanted, mode="bicubic", antialias=True).flatten(2).mT.to(table.dtype)
    zeros = torch.zeros_like(like[:1, : n_prefix - first.shape[1]])
    return torch.cat([first, zeros, grid], dim=1).repeat(len(like), 1, 1)
