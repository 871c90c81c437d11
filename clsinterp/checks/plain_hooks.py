"""The slow twin of the hook names: every block spelled out in plain torch, with an edit at one named place.

No nnsight, no fused attention, no sharing of code with `hookpoints`: what `check` and the tests compare with.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clsinterp.checks import plain_timm
from clsinterp.interventions import TokenEdit
from clsinterp.models.outputs import hidden_of, logits_of, with_logits
from clsinterp.vision_model import VisionModel


@torch.no_grad()
def edited_forward(
    model: VisionModel, pixels: Tensor, name: str | None, edit: TokenEdit
) -> tuple[dict[str, Tensor], Tensor]:
    """Values at every name inside the blocks (before the edit's effect at that place), and the logits after `edit` at `name`.

    Without a classifier the last hidden state stands in for the logits.
    """
    module, family = model._module, model.family
    blocks = module.get_submodule(family.blocks)
    seen: dict[str, Tensor] = {}

    def at(block: int, place: str, value: Tensor) -> Tensor:
        here = f"blocks.{block}.{place}"
        seen[here] = value
        return edit(value) if here == name else value

    with ExitStack() as hooks:
        _edit_ends(model, name, edit, lambda handle: hooks.callback(handle.remove))
        hooks.enter_context(_passed_by(blocks))  # what they do is spelled out here
        entering: list[dict[str, Any]] = []  # of each block
        with ExitStack() as first:
            grab = lambda _m, args, kwargs: entering.append({"h": args[0], "args": args[1:], "kwargs": kwargs})  # noqa: E731
            for block in blocks:
                first.callback(block.register_forward_pre_hook(grab, with_kwargs=True).remove)
            module(pixels)
        h = entering[0]["h"]
        # (the first forward above ran the edits outside the blocks, so what enters block 0 has them)
        for i, block in enumerate(blocks):
            if family.library == "timm":
                h = plain_timm.block(block, h, model.n_heads, entering[i]["kwargs"], partial(at, i))
            else:
                h = _block(model, block, h, entering[i], partial(at, i))
        handle = blocks[-1].register_forward_hook(lambda _m, _a, _o: h)
        hooks.callback(handle.remove)
        output = module(pixels)
    return seen, logits_of(output) if family.heads else hidden_of(output)


@contextmanager
def _passed_by(blocks: Any) -> Iterator[None]:
    """Within the block of code, each of `blocks` hands on what it was given."""
    forwards = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = lambda h, *args, **kwargs: h
    try:
        yield
    finally:
        for block, forward in zip(blocks, forwards, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


def _edit_ends(model: VisionModel, name: str | None, edit: TokenEdit, keep: Callable[[Any], Any]) -> None:
    """Torch hooks for the places outside the blocks."""
    module, family = model._module, model.family
    embed: Any = module.get_submodule(family.embed)
    if name == "hook_embed":
        patches = module.get_submodule(family.patch_embed)

        def change(_m, _a, out):
            return edit(out) if out.ndim == 3 else edit(out.flatten(2).mT).mT.reshape(out.shape)

        keep(patches.register_forward_hook(change))
    if name == "hook_pos_embed":

        def add(_m, _a, out):
            timm = family.library == "timm"
            positions = (
                plain_timm.positions(getattr(module, "backbone", module), out, model.layout.n_prefix)
                if timm
                else _positions(model, embed, out)
            )
            return out + edit(positions) - positions

        keep(embed.register_forward_hook(add))
    if name in ("hook_full_embed", "hook_ln_pre"):
        place = embed if name == "hook_full_embed" else module.get_submodule(family.ln_pre or "")
        keep(place.register_forward_hook(lambda _m, _a, out: edit(out)))
    norm, scaled = model.lens_norm, plain_timm.scaled if family.library == "timm" else _scaled
    if name == "ln_final.hook_normalized" and norm is not None:
        keep(norm.register_forward_hook(lambda _m, _a, out: edit(out)))
    if name == "ln_final.hook_scale" and norm is not None:
        keep(norm.register_forward_hook(lambda m, args, _o: scaled(m, args[0], edit)))
    if name == "hook_readout" and len(model.heads) == 1:
        keep(model.heads[0].register_forward_pre_hook(lambda _m, args: (edit(args[0]),)))
    if name == "hook_readout" and len(model.heads) == 2:  # DeiT: the two read-outs side by side are one place
        last: dict[str, Tensor] = {}
        keep(
            module.get_submodule(family.ln_final or "").register_forward_hook(
                lambda _m, _a, out: last.update(tokens=out)
            )
        )
        for i, head in enumerate(model.heads):

            def both(_m, _args, i=i):
                return (edit(torch.cat([last["tokens"][:, 0], last["tokens"][:, 1]], dim=-1)).chunk(2, dim=-1)[i],)

            keep(head.register_forward_pre_hook(both))
    if name == "hook_logits":
        keep(module.register_forward_hook(lambda _m, _a, out: with_logits(out, edit(logits_of(out)))))


def _positions(model: VisionModel, embed: Any, like: Tensor) -> Tensor:
    """Position embeddings, by bicubic interpolation where the image is square and of another size than in training.

    DINOv2 with registers smooths where it shrinks them, the older DINOv2 does not.
    """
    if hasattr(embed, "positional_embedding"):  # open_clip
        table = embed.positional_embedding[None]
    elif hasattr(embed, "position_embedding"):
        table = (
            embed.position_embedding
            if isinstance(embed.position_embedding, Tensor)
            else embed.position_embedding.weight
        )
        table = table.view(1, *table.shape[-2:])
    elif getattr(getattr(embed, "config", None), "is_native", False):  # AIMv2
        return _waves(math.isqrt(like.shape[1]), like.shape[2]).to(like).repeat(len(like), 1, 1)
    elif getattr(embed, "position_embeddings", None) is None:
        return torch.zeros_like(like)
    else:
        table = embed.position_embeddings
    n_prefix = model.layout.n_prefix
    n_table_prefix = n_prefix - _n_without_position(model)
    first, grid = table[:, :n_table_prefix], table[:, n_table_prefix:]
    if grid.shape[1] != like.shape[1] - n_prefix:
        side, wanted = math.isqrt(grid.shape[1]), math.isqrt(like.shape[1] - n_prefix)
        square = grid.mT.unflatten(2, (side, side)).float()
        square = interpolate(square, (wanted, wanted), mode="bicubic", antialias=n_prefix > n_table_prefix)
        grid = square.flatten(2).mT.to(table.dtype)
    zeros = torch.zeros_like(like[:1, : n_prefix - n_table_prefix])
    return torch.cat([first, zeros, grid], dim=1).repeat(len(like), 1, 1)


def _n_without_position(model: VisionModel) -> int:
    registers = model.layout.slices.get("registers")
    return registers.stop - registers.start if registers and registers.start else 0  # Pixio's stand first


def _waves(side: int, d_model: int) -> Tensor:
    """Sines and cosines of a patch's column, then of its row, at d_model / 4 frequencies from 1 to 1e-4."""
    at = torch.arange(side, dtype=torch.float64)
    n = d_model // 4
    angles = at[:, None] / 10000 ** (torch.arange(n, dtype=torch.float64) / n)
    columns, rows = angles.repeat(side, 1), angles.repeat_interleave(side, 0)
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)


def _scaled(norm: Any, x: Tensor, edit: TokenEdit) -> Tensor:
    if "rms" in type(norm).__name__.lower():
        eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        return x / edit(torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)) * norm.weight
    scale = torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + norm.eps)
    out = (x - x.mean(-1, keepdim=True)) / edit(scale) * norm.weight
    return out if norm.bias is None else out + norm.bias


def _block(
    model: VisionModel, block: Any, h: Tensor, entering: dict[str, Any], at: Callable[[str, Tensor], Tensor]
) -> Tensor:
    """One block spelled out; `at` sees, and may change, the value at each name."""
    family, n_heads = model.family, model.n_heads
    b, t, _ = h.shape

    def norm(module: Any, x: Tensor, prefix: str) -> Tensor:
        out = _scaled(module, x, lambda scale: at(f"{prefix}.hook_scale", scale))
        return at(f"{prefix}.hook_normalized", out)

    def scale_of(path: str | None) -> Any:
        value: Any = block
        for part in path.split(".") if path else ():
            value = getattr(value, part)
        return value if path else 1.0

    pre = at("hook_resid_pre", h)
    x = norm(getattr(block, family.ln1), pre, "ln1")
    attn, out_map = getattr(block, family.attn), getattr(getattr(block, family.attn), family.attn_out)
    made = [getattr(attn, name)(x) for name in family.qkv]
    made = list(made[0].chunk(3, dim=-1)) if len(made) == 1 else made
    q, k, v = (
        at(f"attn.hook_{n}", y.reshape(b, t, n_heads, -1)).transpose(1, 2) for n, y in zip("qkv", made, strict=True)
    )
    if "position_embeddings" in entering["kwargs"]:  # DINOv3 turns the patches' queries and keys by their position
        cos, sin = entering["kwargs"]["position_embeddings"]
        q, k = (_rotate(y, cos, sin) for y in (q, k))
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    bias = _bias(model, block, entering, t)
    scores = at("attn.hook_attn_scores", scores if bias is None else scores + bias)
    pattern = at("attn.hook_pattern", torch.softmax(scores, -1))
    z = at("attn.hook_z", (pattern @ v).transpose(1, 2))
    by_head = [z[:, :, i] @ out_map.weight[:, i * z.shape[-1] : (i + 1) * z.shape[-1]].T for i in range(n_heads)]
    result = at("attn.hook_result", torch.stack(by_head, dim=2) * scale_of(family.scale1))
    out_bias = 0.0 if out_map.bias is None else out_map.bias * scale_of(family.scale1)
    attn_out = at("hook_attn_out", result.sum(2) + out_bias)
    mid = at("hook_resid_mid", pre + attn_out)
    x = norm(getattr(block, family.ln2), mid, "ln2")
    mlp = getattr(block, family.mlp)
    if hasattr(mlp, "c_fc"):  # open_clip
        post, last = mlp.gelu(at("mlp.hook_pre", mlp.c_fc(x))), mlp.c_proj
    elif hasattr(mlp, "weights_in"):  # DINOv2-giant: gate and value side by side
        gate, value = at("mlp.hook_pre", mlp.weights_in(x)).chunk(2, dim=-1)
        post, last = torch.nn.functional.silu(gate) * value, mlp.weights_out
    elif hasattr(mlp, "gate_proj"):
        post = mlp.act_fn(at("mlp.hook_pre", mlp.gate_proj(x))) * mlp.up_proj(x)
        last = mlp.down_proj
    else:
        first, last = (mlp.fc1, mlp.fc2) if hasattr(mlp, "fc1") else (mlp.up_proj, mlp.down_proj)
        activation = mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.act_fn
        post = activation(at("mlp.hook_pre", first(x)))
    mlp_out = at("hook_mlp_out", last(at("mlp.hook_post", post)) * scale_of(family.scale2))
    return at("hook_resid_post", mid + mlp_out)


def _rotate(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    n_prefix = y.shape[2] - cos.shape[-2]
    patches = y[:, :, n_prefix:]
    left, right = patches.chunk(2, dim=-1)
    return torch.cat([y[:, :, :n_prefix], patches * cos + torch.cat([-right, left], dim=-1) * sin], dim=2)


def _bias(model: VisionModel, block: Any, entering: dict[str, Any], n_tokens: int) -> Tensor | None:
    """BEiT's relative position bias on the scores: the block's own, plus the one that all blocks share."""
    if not hasattr(block, "relative_position_bias"):
        return None
    kwargs = entering["kwargs"]
    total = kwargs.get("attention_mask", entering["args"][0] if entering["args"] else None)
    own = block.relative_position_bias
    if own is not None:
        window = tuple(side // block.patch_size for side in kwargs["resolution"])
        value = own(window, False, dim_size=n_tokens)
        total = value if total is None else total + value
    return total
