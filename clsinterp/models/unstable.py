"""Names of nnsight, torch and transformers that may move between releases, as far as a trace needs them.

An upgrade is repaired here and in `clsinterp.remote.unstable`; tests/test_unstable.py lists what a release has moved.
Travels to a server, see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Mediator
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor, nn

__all__ = [
    "Envoy",
    "Wrapped",
    "attention_kernel",
    "cached",
    "commit_of",
    "copied_above",
    "edit_count",
    "edits_of",
    "from_config",
    "output_view",
    "set_edits",
]


class Wrapped(TransformersModel):
    """nnsight's model, whose questions about its inputs are asked of public methods."""

    def n_images(self, *inputs: Any) -> int:
        """How many images `inputs` hold."""
        raise NotImplementedError

    def joined(self, inputs: list[Any]) -> Any:
        """The images of several invokes as one input."""
        raise NotImplementedError

    def _wrap(self, module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        # The pipeline would only guess an image processor (and fail without torchvision); pixels() does its work.
        return module

    def _batch_size(self, *inputs: Any, **kwargs: Any) -> int:
        return self.n_images(*inputs)

    def _batch(self, invokes: list[tuple], fn: Any) -> tuple:
        if not invokes:
            return (), {}
        images = self.joined([inputs[0] for inputs, _ in invokes])
        return (images,), {key: value for _, kwargs in invokes for key, value in kwargs.items()}


def output_view(
    name: str, doc: str, read: Callable[[Any, Any], Tensor], write: Callable[[Any, Any, Tensor], Any] | None = None
) -> Any:
    """A class attribute of an envoy: a view of its module's output, read, assigned and edited in place inside a trace.

    Args:
        name: of the attribute.
        doc: its docstring.
        read: (envoy, output) -> the view; it must share memory with the output for edits in place to land.
        write: (envoy, output, new value of the view) -> the new output; None: the view is the whole output.
    """
    prop: Any = eproperty(key="output")(read)
    prop.name, prop.__doc__ = name, doc  # not those of `read`, which has others
    if write is None:
        return prop

    def keep(self: Any, edited: Tensor, raw: Any) -> Any:
        return raw  # `edited` is a view of `raw`, so in-place edits are in it already

    def assign(self: Any, new: Tensor) -> Any:
        return write(self, Mediator.value(f"{self.path}.output"), new)

    prop.transform(keep)
    prop.postprocess(assign)
    return prop


def edits_of(model: Envoy) -> list[Any]:
    """The edits that `model` carries into every trace."""
    return list(model.__dict__["_edits"])


def set_edits(model: Envoy, edits: list[Any]) -> None:
    """Have `model` carry `edits` and no others: nnsight can take back all of them, but not one."""
    model.__dict__["_edits"] = edits


def edit_count(tensor: Tensor) -> int:
    """How often `tensor` was edited in place."""
    return tensor._version


def from_config(hf_class: Any, config: Any, **options: Any) -> nn.Module:
    """A Hugging Face model of `config`, with the options of ``from_pretrained`` that concern no weights."""
    return hf_class._from_config(config, **options)


def commit_of(config: Any, where: str, revision: str | None) -> str | None:
    """The commit on the hub that `config` was read from, at `revision` of `where`; None for a folder."""
    if commit := getattr(config, "_commit_hash", None):  # transformers before 5.23
        return commit
    from transformers.utils.hub import resolve_revision

    return getattr(resolve_revision(where, revision), "resolved", None)


def cached(where: str, name: str, revision: str | None) -> str | None:
    """Where the file `name` of a hub id lies in the cache, downloaded if need be; None where the id has no such file."""
    from transformers.utils import cached_file

    return cached_file(where, name, revision=revision, _raise_exceptions_for_missing_entries=False)


def attention_kernel(module: nn.Module) -> str:
    """What computes a model's attention: ``eager``, ``sdpa`` or another."""
    if any(getattr(part, "fused_attn", True) is False for part in module.modules()):  # timm
        return "eager"
    return getattr(getattr(module, "config", None), "_attn_implementation", None) or "sdpa"


def copied_above(module: nn.Module, paths: tuple[str, ...]) -> nn.Module:
    """A model that shares every module with `module` but those on the way to `paths`, which can be set in it alone.

    What nnsight keeps in a module is left behind: it would run the module that was copied.
    """
    made = nn.Module.__new__(type(module))
    own = {key: value for key, value in module.__dict__.items() if not type(value).__module__.startswith("nnsight.")}
    made.__dict__ = {key: copy(value) if isinstance(value, dict) else value for key, value in own.items()}
    inner = {first for path in paths for first, dot, _ in [path.partition(".")] if dot}
    for name in inner:
        below = tuple(path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}."))
        made._modules[name] = copied_above(module._modules[name], below)  # type: ignore[arg-type]
    return made
