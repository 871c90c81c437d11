"""What happens where a walk stops: a value is kept, or hook functions are called with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.hooks.points import Visit
from clsinterp.models.unstable import edit_count


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is told about where it stands.

    Attributes:
        name: such as ``blocks.3.attn.hook_pattern``.
    """

    name: str

    def layer(self) -> int:
        """The block's number.

        Raises:
            RequestError: the name is not inside a block.
        """
        if not (found := re.match(r"blocks\.(\d+)\.", self.name)):
            raise RequestError(f"{self.name} is not inside a block.")
        return int(found[1])


HookFn = Callable[[Tensor, HookPoint], Tensor | None]


def keeping(kept: dict[str, Tensor], with_grad: bool) -> Visit:
    """The visit that puts every value into `kept` by name, detached; `with_grad` keeps what has gradients afterwards."""

    def keep(name: str, value: Tensor) -> Tensor | None:
        if not with_grad:
            kept[name] = value.detach()
            return None
        # Handed back, so that the output is computed from this very tensor and its gradient exists.
        kept[name] = value if value.requires_grad else value.requires_grad_()
        return value

    return keep


def calling(forward: Mapping[str, Sequence[HookFn]], backward: Mapping[str, Sequence[HookFn]]) -> Visit:
    """The visit that calls the functions at each name, those of `backward` with the gradient once there is one."""

    def visit(name: str, value: Tensor) -> Tensor | None:
        new = _apply(forward.get(name, ()), name, value)
        if name not in backward:
            return new
        watched = value if new is None else new
        watched = watched.clone() if watched.requires_grad else watched.clone().requires_grad_()
        for function in backward[name]:
            watched.register_hook(lambda grad, function=function: function(grad, HookPoint(name)))
        return watched

    return visit


def _apply(functions: Sequence[HookFn], name: str, value: Tensor) -> Tensor | None:
    """What `functions` make of `value`; None if they leave it."""
    if not functions:
        return None
    current, edited = _copy(value), False
    for function in functions:
        before = edit_count(current)
        new = function(current, HookPoint(name))
        if new is None:
            edited |= edit_count(current) != before
            continue
        if new.shape != value.shape:
            raise RequestError(
                f"the hook at {name} returned shape {tuple(new.shape)}; {tuple(value.shape)} is expected."
            )
        current, edited = new, True
    return current if edited else None


def _copy(value: Tensor) -> Tensor:
    """A copy, since an edit in place must not reach tensors kept elsewhere, and one that counts its edits.

    Tensors made in inference mode count none; those copied outside of it do.
    """
    if not value.is_inference():
        return value.clone()
    with torch.inference_mode(False):
        return value.clone()
