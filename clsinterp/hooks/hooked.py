"""`run_with_cache`, `run_with_hooks` and `hooks`: TransformerLens's way of working, expressed as nnsight traces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import nnsight
import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.hooks.cache import ActivationCache
from clsinterp.hooks.config import Config
from clsinterp.hooks.points import ON_REQUEST, hook_names, walk
from clsinterp.hooks.shorthand import Key, full_name, is_shorthand
from clsinterp.hooks.visits import HookFn, HookPoint, calling, keeping
from clsinterp.models.outputs import hidden_of, logits_of
from clsinterp.models.traced import Traced
from clsinterp.models.unstable import edits_of, set_edits
from clsinterp.remote.model import Remote

NamesFilter = None | Key | Sequence[Key] | Callable[[str], bool]


class Hooked(Remote):
    """The part of a `VisionModel` that speaks hook names."""

    def hook_names(self) -> list[str]:
        """Every hook name, in forward order."""
        return hook_names(self)

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """Hook name -> `HookPoint`, in forward order."""
        return {name: HookPoint(name) for name in hook_names(self)}

    @property
    def cfg(self) -> Config:
        """The model's sizes, under TransformerLens's names: ``n_layers``, ``d_model``, ``n_heads``, ``d_head``, ``d_mlp``, .."""
        return Config.of(self)

    def run_with_cache(
        self,
        images: Any,
        names_filter: NamesFilter = None,
        *,
        stop_at_layer: int | None = None,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, ActivationCache]:
        """One forward; returns (logits, cache) with the asked activations, detached.

        Args:
            images: PIL images, lists of them, or pixel tensors.
            names_filter: a hook name or its shorthand (``("z", 1)``), several, a function of the name, or None for all
                (without ``hook_result``, which is large and has to be named).
            stop_at_layer: run only the blocks before this one (negative counts from the end); the residual stream that
                would enter it is returned in place of the logits.
            device: where the cached activations go.
            remove_batch_dim: drop the batch axis; for a single image.
            incl_bwd: a function from logits to a scalar; its gradients are then in ``cache.grad(name)``.

        Returns:
            Logits (batch, class) (the read-out, for a checkpoint without a classifier), and the cache.

        Raises:
            RequestError: an unknown name, a layer out of range, more than one image with `remove_batch_dim`.
        """
        pixels = self.pixels(images)
        if remove_batch_dim and len(pixels) != 1:
            raise RequestError(f"remove_batch_dim is for one image; {len(pixels)} were given.")
        if incl_bwd is not None and stop_at_layer is not None:
            raise RequestError("incl_bwd needs the logits, which stop_at_layer does not reach; give one of them.")
        names = select(self, names_filter)
        stop = _stop(stop_at_layer, self.n_layers)
        if stop is not None:
            names = [name for name in names if _runs_before(name, stop)]
        kept: dict[str, Tensor] = {}
        keep = keeping(kept, with_grad=incl_bwd is not None)
        if self.server is not None and incl_bwd is not None:
            raise RequestError(
                "incl_bwd differentiates here, and the weights are on a server; load the model without remote=."
            )
        grad = incl_bwd is not None or (torch.is_grad_enabled() and self.server is None)
        with torch.set_grad_enabled(grad), self.trace(pixels) as tracer:
            with torch.set_grad_enabled(grad):
                walk(self, names, keep, stop)
            nnsight.save(kept)  # filled on the server, if there is one
            if stop is not None:
                out = nnsight.save(self.blocks[stop].input)
                tracer.stop()
            else:
                out = nnsight.save(self.logits if self.family.heads else self.readout)
        grads: dict[str, Tensor] = {}
        if incl_bwd is not None:
            found = torch.autograd.grad(incl_bwd(out), list(kept.values()), allow_unused=True)
            grads = {
                n: g if g is not None else torch.zeros_like(v) for (n, v), g in zip(kept.items(), found, strict=True)
            }
            kept = {name: value.detach() for name, value in kept.items()}
        cache = ActivationCache(kept, self, grads=grads)
        if device is not None:
            cache = cache.to(device)
        return (out[0], cache.remove_batch_dim()) if remove_batch_dim else (out, cache)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[NamesFilter, HookFn]] = (),
        bwd_hooks: Sequence[tuple[NamesFilter, HookFn]] = (),
    ) -> Iterator[Self]:
        """Inside the context every call and trace of the model runs with these hooks; afterwards it is as before.

        Args:
            fwd_hooks: (name, shorthand or filter, function) pairs. The function gets (tensor, `HookPoint`); it may edit the
                tensor in place, return a new one, or return None and leave it.
            bwd_hooks: the same for gradients: called in the backward pass with the gradient at that place.

        Raises:
            RequestError: an unknown name.
        """
        if bwd_hooks and self.server is not None:
            raise RequestError(
                "bwd_hooks run where you call backward, and the weights are on a server; load the model without remote=."
            )
        forward = _by_name(self, fwd_hooks)
        backward = _by_name(self, bwd_hooks)

        visit = calling(forward, backward)
        wanted = list(forward | backward)
        before = edits_of(self)
        with self.edit(inplace=True):
            walk(self, wanted, visit)
        try:
            yield self
        finally:
            set_edits(self, before)

    def run_with_hooks(
        self,
        images: Any,
        fwd_hooks: Sequence[tuple[NamesFilter, HookFn]] = (),
        bwd_hooks: Sequence[tuple[NamesFilter, HookFn]] = (),
    ) -> Tensor:
        """Logits (batch, class) of one forward with hooks, see `hooks`; backward hooks run when you call ``backward``.

        Raises:
            RequestError: an unknown name.
        """
        with self.hooks(fwd_hooks, bwd_hooks):
            out = self(images)
            return logits_of(out) if self.family.heads else hidden_of(out)


def select(model: Traced, names_filter: NamesFilter) -> list[str]:
    """The names that `names_filter` stands for, in forward order.

    Raises:
        RequestError: an unknown name; the message gives the closest ones.
    """
    names = hook_names(model)
    if names_filter is None or callable(names_filter):
        usual = [name for name in names if not name.endswith(ON_REQUEST)]
        return usual if names_filter is None else [name for name in usual if names_filter(name)]
    single = isinstance(names_filter, str) or is_shorthand(names_filter)
    given: list[Any] = [names_filter] if single else list(names_filter)
    asked = [key if key in names else full_name(key, model.n_layers) for key in given]
    for name in asked:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
            raise RequestError(
                f"there is no hook {name!r} in this {model.family.name} model; close ones: {', '.join(close)}."
            )
    return [name for name in names if name in set(asked)]


def _by_name(model: Traced, hooks: Sequence[tuple[NamesFilter, HookFn]]) -> dict[str, list[HookFn]]:
    found: dict[str, list[HookFn]] = {}
    for names_filter, function in hooks:
        for name in select(model, names_filter):
            found.setdefault(name, []).append(function)
    return found


def _stop(stop_at_layer: int | None, n_layers: int) -> int | None:
    if stop_at_layer is None:
        return None
    stop = stop_at_layer + n_layers if stop_at_layer < 0 else stop_at_layer
    if not 0 <= stop < n_layers:
        raise RequestError(f"stop_at_layer {stop_at_layer} was given; {-n_layers} to {n_layers - 1} is expected.")
    return stop


def _runs_before(name: str, stop: int) -> bool:
    found = re.match(r"blocks\.(\d+)\.", name)
    return int(found[1]) < stop if found else name in ("hook_embed", "hook_pos_embed", "hook_full_embed", "hook_ln_pre")
