"""Token groups of a module's output as values of a trace: read, assign, edit in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clsinterp.models.tokens import TokenLayout
from clsinterp.models.unstable import Envoy, output_view


def _token_view(group: str, doc: str) -> Any:
    """A view of one token group of a module's output: read it, edit it in place, or assign to it, inside a trace."""

    def read(self: Tokens, value: Tensor) -> Tensor:
        return value[:, self.layout.index(group)]

    def write(self: Tokens, value: Tensor, new: Tensor) -> Tensor:
        value = value.clone()
        value[:, self.layout.index(group)] = new
        return value

    return output_view(group, doc, read, write)


def _whole(self: Tokens, value: Tensor) -> Tensor:
    return value


def _instead(self: Tokens, value: Tensor, new: Tensor) -> Tensor:
    return new if new.shape == value.shape else new.expand_as(value).clone()


class Tokens(Envoy):
    """A module whose output is the token sequence: a block, or the embeddings."""

    @property
    def layout(self) -> TokenLayout:
        """Which token stands where."""
        return self.root.layout

    cls = _token_view("cls", "The CLS token, (batch, d_model).")
    distill = _token_view("distill", "DeiT's distillation token, (batch, d_model).")
    registers = _token_view("registers", "Register tokens, (batch, n_registers, d_model).")
    patches = _token_view("patches", "Patch tokens, (batch, n_patches, d_model).")
    resid = output_view("resid", "The residual stream after this module, (batch, token, d_model).", _whole, _instead)
