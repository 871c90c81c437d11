"""Token groups of a module's output as values of a trace: read, assign, edit in place."""

from __future__ import annotations

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Mediator
from torch import Tensor

from clsinterp.models.tokens import TokenLayout


def _token_view(group: str, doc: str) -> eproperty:
    """A view of one token group of a module's output: read it, edit it in place, or assign to it, inside a trace."""

    def view(self: Tokens, value: Tensor) -> Tensor:
        return value[:, self.layout.index(group)]

    view.__doc__ = doc
    prop = eproperty(key="output")(view)
    prop.name = group  # not view.__name__: a function travels to a server as its source, where it is called view

    def write_back(self: Tokens, edited: Tensor, raw: Tensor) -> Tensor:
        return raw  # `edited` is a view of `raw`, so in-place edits are in it already

    def assign(self: Tokens, new: Tensor) -> Tensor:
        value = Mediator.value(f"{self.path}.output").clone()
        value[:, self.layout.index(group)] = new
        return value

    prop.transform(write_back)
    prop.postprocess(assign)
    return prop


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

    @eproperty(key="output")
    def resid(self, value: Tensor) -> Tensor:
        """The residual stream after this module, (batch, token, d_model)."""
        return value
