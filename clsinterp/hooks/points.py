"""TransformerLens-style names and the places they stand for: read in forward order, written so that the output follows.

`walk` runs inside a trace. At every wanted name it calls `visit(name, value)`; what that returns replaces the value, and
everything downstream is computed from it, by the same operations in the same order as the model's own:

- a value that a module takes or gives (queries, MLP hidden layer, residual stream) is handed back to that module;
- a value that exists between modules (``resid_mid``, ``attn_out`` after LayerScale, ``mlp_out``) is put into the sum it
  belongs to, and the block's sums are formed again from there;
- attention scores and patterns, which fused kernels never form, are computed for the blocks where they are wanted, and
  when they are edited the block's ``z`` is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clsinterp.models.block_maps import (
    QKV,
    attn_bias,
    attn_output,
    by_head,
    edit_qkv,
    head_results,
    mlp_maps,
    scaled,
)
from clsinterp.models.norms import centred, denominator, rescaled

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced

Visit = Callable[[str, Tensor], Tensor | None]

ATTN = ("hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern", "hook_z", "hook_result")
BLOCK = (
    "hook_resid_pre",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    *(f"attn.{name}" for name in ATTN),
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
# Large, so only taken when named: a filter that is a function or None leaves them out.
ON_REQUEST = ("attn.hook_result",)


def hook_names(model: Traced) -> list[str]:
    """Every name of `model`, in forward order."""
    names = ["hook_embed", "hook_pos_embed", "hook_full_embed"]
    if model.family.ln_pre:
        names.append("hook_ln_pre")
    names += [f"blocks.{i}.{name}" for i in range(model.n_layers) for name in BLOCK]
    if model.lens_norm is not None:
        names += ["ln_final.hook_scale", "ln_final.hook_normalized"]
    names.append("hook_readout")
    return [*names, "hook_logits"] if model.family.heads else names


@dataclass(frozen=True)
class _Stop:
    """Where the walk stands: which names are wanted there, and what is done at them."""

    prefix: str
    names: frozenset[str]
    visit: Visit

    def under(self, prefix: str) -> _Stop:
        """The names that begin with `prefix`, without it."""
        inside = frozenset(name.removeprefix(prefix) for name in self.names if name.startswith(prefix))
        return _Stop(self.prefix + prefix, inside, self.visit)

    def wants(self, *names: str) -> bool:
        return bool(self.names & set(names))

    def at(self, name: str, value: Any) -> tuple[Any, bool]:
        """`value` as it is after the visit, and whether it was edited."""
        new = self.visit(self.prefix + name, value) if name in self.names else None
        return (value, False) if new is None else (new, True)

    def through(self, name: str, envoy: Any, place: str, value: Tensor | None = None) -> None:
        """Visit `name`, which stands for ``envoy.place`` as it is (`value`, if it is known), and write back an edit."""
        if name in self.names:
            new, edited = self.at(name, getattr(envoy, place) if value is None else value)
            if edited:
                setattr(envoy, place, new)


def walk(model: Any, wanted: Iterable[str], visit: Visit, stop_at_layer: int | None = None) -> None:
    """Visit the `wanted` names in forward order; call it inside a trace of `model`.

    Args:
        model: the model being traced.
        wanted: names from `hook_names`.
        visit: called with (name, value); a tensor it returns replaces the value.
        stop_at_layer: visit nothing from this block on.
    """
    here = _Stop("", frozenset(wanted), visit)
    _embeddings(model, here)
    for i in range(model.n_layers if stop_at_layer is None else stop_at_layer):
        inside = here.under(f"blocks.{i}.")
        if inside.names:
            _block(model, i, inside)
    if stop_at_layer is not None:
        return
    if model.lens_norm is not None:
        _norm(model.ln_final, model.lens_norm, here.under("ln_final."))
    here.through("hook_readout", model, "readout")
    here.through("hook_logits", model, "logits")


def _embeddings(model: Traced, here: _Stop) -> None:
    embed = model.embed
    size = model.get(model.family.patch_embed).input.shape[-2:] if here.wants("hook_pos_embed") else None
    if here.wants("hook_embed"):
        patches: Any = model.get(model.family.patch_embed)
        raw = patches.output
        # CLIP, SigLIP and DINOv3 have a bare convolution there: (batch, d_model, height, width)
        value, edited = here.at("hook_embed", raw.flatten(2).mT if raw.ndim == 4 else raw)
        if edited:
            patches.output = value.mT.unflatten(2, raw.shape[2:]) if raw.ndim == 4 else value
    if here.wants("hook_pos_embed", "hook_full_embed"):
        full = embed.output
        positions = model.family.positions(model, size, full) if size is not None else full
        new, moved = here.at("hook_pos_embed", positions)
        if moved:
            # Taken away from a reading of its own, so that the gradient at `new` is that of adding it.
            full = full - model.family.positions(model, size, full) + new
        full, edited = here.at("hook_full_embed", full)
        if moved or edited:
            embed.output = full
    if here.wants("hook_ln_pre"):
        here.through("hook_ln_pre", model.ln_pre, "output")


def _norm(envoy: Any, norm: nn.Module, here: _Stop) -> None:
    """A norm's denominator and output."""
    out = None
    if here.wants("hook_scale"):
        x = envoy.input
        scale, edited = here.at("hook_scale", denominator(norm, x))
        if edited:
            envoy.output = out = rescaled(norm, centred(norm, x) / scale)
    here.through("hook_normalized", envoy, "output", out)


def _block(model: Traced, i: int, here: _Stop) -> None:
    """One block, from its input to its output."""
    block = model.blocks[i]
    module: Any = block._module
    wants_mid = here.wants("attn.hook_result", "hook_attn_out", "hook_resid_mid")
    pre: Any = None
    mid: Any = None
    post: Any = None
    moved = False  # whether the sum after attention is no longer the block's own
    if wants_mid or here.wants("hook_resid_pre"):
        pre, edited = here.at("hook_resid_pre", block.input)
        if edited:
            block.input = pre
    _norm(block.ln1, getattr(module, model.family.ln1), here.under("ln1."))
    z = _attention(model, i, here.under("attn."))
    if wants_mid:
        attn_out, moved = _attn_out(model, i, z, here)
        mid, edited = here.at("hook_resid_mid", pre + attn_out if moved else block.ln2.input)
        moved |= edited
        if moved:
            block.ln2.input = mid
    elif here.wants("hook_mlp_out"):
        mid = block.ln2.input
    _norm(block.ln2, getattr(module, model.family.ln2), here.under("ln2."))
    _mlp(block.mlp, mlp_maps(model, i), here.under("mlp."))
    if moved or here.wants("hook_mlp_out"):
        mlp_out, edited = here.at("hook_mlp_out", scaled(model, i, "scale2", block.mlp.output))
        if moved or edited:
            block.output = post = mlp_out + mid
    here.through("hook_resid_post", block, "output", post)


def _attention(model: Traced, i: int, here: _Stop) -> Tensor | None:
    """Queries to z; returns z (batch, token, head, d_head) where the head results are wanted."""
    attn = model.blocks[i].attn
    wants_pattern = here.wants("hook_attn_scores", "hook_pattern")
    args, kwargs = attn.inputs if wants_pattern else ((), {})
    wanted = [x for x in QKV if wants_pattern or here.wants(f"hook_{x}")]
    qkv = edit_qkv(model, i, wanted, lambda x, value: here.at(f"hook_{x}", value)) if wanted else {}
    z: Any = None
    moved = False
    if wants_pattern:
        q, k, v = (qkv[x].transpose(1, 2) for x in QKV)  # (batch, head, token, d_head)
        z, moved = _pattern(model.family.scores(attn._module, q, k, args, kwargs), v, here)
        if moved and model.family.after_mixing:
            z = model.family.after_mixing(attn._module, z, args)
    out = getattr(attn, model.family.attn_out)
    if moved or here.wants("hook_z", "hook_result"):
        if not moved:
            z = by_head(out.input, model.n_heads)
        z, edited = here.at("hook_z", z)
        if moved or edited:
            out.input = z.flatten(2)
    return z


def _pattern(scores: Tensor, v: Tensor, here: _Stop) -> tuple[Tensor | None, bool]:
    """Scores and pattern (batch, head, query, key); if either is edited, the z that follows (batch, token, head, d_head)."""
    scores, first = here.at("hook_attn_scores", scores)
    pattern, second = here.at("hook_pattern", scores.softmax(dim=-1))
    return ((pattern @ v).transpose(1, 2), True) if first or second else (None, False)


def _attn_out(model: Traced, i: int, z: Tensor | None, here: _Stop) -> tuple[Tensor, bool]:
    """What attention adds to the stream, and whether it was edited, as a whole or by head."""
    attn_out, moved = None, False
    if here.wants("attn.hook_result"):
        assert z is not None  # _attention returns it where results are wanted
        result, moved = here.at("attn.hook_result", head_results(model, i, z))
        attn_out = result.sum(dim=2) + attn_bias(model, i) if moved else None
    if attn_out is None:
        attn_out = scaled(model, i, "scale1", attn_output(model, i))
    attn_out, edited = here.at("hook_attn_out", attn_out)
    return attn_out, moved or edited


def _mlp(envoy: Any, maps: tuple[str, str], here: _Stop) -> None:
    first, last = (getattr(envoy, name) for name in maps)
    here.through("hook_pre", first, "output")
    here.through("hook_post", last, "input")
