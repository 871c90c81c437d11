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
from nnsight.intervention.source import Controller
from nnsight.modeling.transformers import TransformersModel
from nnsight.tracing.tracer import _saves
from torch import Tensor, nn

__all__ = [
    "Envoy",
    "OutputView",
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
    "untraced",
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


class OutputView(eproperty):
    """An `eproperty` that hands out another view where the last one is saved already: what is saved stays what it was."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is not None:
            mediator = Mediator.current(f"{obj.path}.{self.key}")
            waiting = mediator.transform
            if waiting is not None and id(waiting.view) in _saves():
                mediator.flush()
        return eproperty.__get__(self, obj, owner)  # methods that travel have no super()


def output_view(
    name: str, doc: str, read: Callable[[Any, Any], Tensor], write: Callable[[Any, Any, Tensor], Any]
) -> Any:
    """A class attribute of an envoy: a part of its module's output, read, assigned and edited in place inside a trace.

    What is read is a copy, so that later edits leave it as it was. It takes the part's place in the output where it was
    edited in place, and where there are gradients, which then pass through it. (Edits of its ``.data`` are not seen.)

    Args:
        name: of the attribute.
        doc: its docstring.
        read: (envoy, output) -> the part.
        write: (envoy, output, new value of the part) -> the new output.
    """

    def copy(self: Any, raw: Any) -> Tensor:
        return read(self, raw).clone()

    def put_back(self: Any, part: Tensor, raw: Any) -> Any:
        return write(self, raw, part) if part.requires_grad or part.is_inference() or edit_count(part) else raw

    def assign(self: Any, new: Tensor) -> Any:
        return write(self, Mediator.value(f"{self.path}.output"), new)

    prop: Any = OutputView(key="output")(copy)
    prop.name, prop.__doc__ = name, doc  # not those of `copy`
    prop.transform(put_back)
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
    """A model that shares every module with `module` but those on the way to `paths`, which can be set in it alone."""
    made = _emptied(module)
    inner = {first for path in paths for first, dot, _ in [path.partition(".")] if dot}
    for name in inner:
        below = tuple(path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}."))
        made._modules[name] = copied_above(module._modules[name], below)  # type: ignore[arg-type]
    return made


def untraced(module: nn.Module) -> nn.Module | None:
    """A copy of `module` and all inside it, parameters shared, which no trace sees.

    Returns:
        None where it is not as its class made it: with hooks on it, or another ``forward``.
    """
    for part in module.modules():
        controller = part.__dict__.get("forward")
        own = controller is None or (
            isinstance(controller, Controller) and controller.state.original is type(part).forward
        )
        if not own or part._forward_hooks or part._forward_pre_hooks or "_hf_hook" in part.__dict__:
            return None
    return _copied(module)


def _copied(module: nn.Module) -> nn.Module:
    made = _emptied(module)
    made._modules = {name: part and _copied(part) for name, part in module._modules.items()}
    return made


def _emptied(module: nn.Module) -> nn.Module:
    """`module` again, without what nnsight keeps in it, which would run the module that was copied."""
    made = nn.Module.__new__(type(module))
    own = {key: value for key, value in module.__dict__.items() if not type(value).__module__.startswith("nnsight.")}
    made.__dict__ = {key: copy(value) if isinstance(value, dict) else value for key, value in own.items()}
    return made
