"""From a source or a loaded module to a `Checkpoint`, by the loader of the library it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models import load_hf, load_open_clip, load_timm, zero_shot
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.classified import Classified, classified
from clsinterp.models.hub_reach import cache_alone_if_unreachable
from clsinterp.models.source import found, resolve
from clsinterp.models.tokens import TokenLayout


@dataclass(frozen=True)
class Loader:
    """How one library's models are had. The functions import the library only when they are called.

    Attributes:
        library: its name, as in ``Family.library``.
        claims: whether a source, as `resolve` gives it, is one of its checkpoints: a folder by its files, an id by its form.
        owns: whether a loaded module is one of its models.
        load: ``load(where, source, *, revision, config_overrides, dtype, allow_pickle, **kwargs)``.
        adopt: a loaded module as a `Checkpoint`.
        plain: the model of a checkpoint's source as the library itself loads it; None: as transformers does.
        fresh: a module of the same architecture with weights drawn anew; None: from its config, as transformers does.
        load_text: as `load` with class names and templates after the source; None where no model has a text tower.
        adopt_text: ``adopt_text(module, tokenizer, classes, templates)``.
    """

    library: str
    claims: Callable[[str], bool]
    owns: Callable[[nn.Module], bool]
    load: Callable[..., Checkpoint]
    adopt: Callable[[nn.Module], Checkpoint]
    plain: Callable[[Checkpoint], nn.Module] | None = None
    fresh: Callable[[nn.Module], nn.Module] | None = None
    load_text: Callable[..., Checkpoint] | None = None
    adopt_text: Callable[..., Checkpoint] | None = None


# open_clip stands before timm, among whose repositories on the hub are some of its own.
# The first that claims a source or owns a module has it; transformers, which takes what is left, stands last.
LOADERS: tuple[Loader, ...] = (
    Loader(
        "open_clip",
        load_open_clip.claims,
        load_open_clip.owns,
        load_open_clip.load,
        load_open_clip.adopt,
        plain=load_open_clip.plain,
        fresh=load_open_clip.fresh,
        load_text=load_open_clip.load,
        adopt_text=load_open_clip.adopt_text,
    ),
    Loader(
        "timm",
        load_timm.claims,
        load_timm.owns,
        load_timm.load,
        load_timm.adopt,
        plain=load_timm.plain,
        fresh=load_timm.fresh,
    ),
    Loader(
        "transformers",
        lambda where: True,
        lambda module: hasattr(module, "config"),
        load_hf.load,
        load_hf.adopt,
        load_text=zero_shot.load_text,
        adopt_text=zero_shot.adopt_text,
    ),
)


def load_checkpoint(
    source: str,
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    revision: str | None = None,
    config_overrides: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> Checkpoint:
    """Load `source` and refuse anything that would leave a backbone weight at its random initial value.

    Args:
        source: hub id, folder, or ``zoo/NAME``.
        classes, templates: class names for a classifier, and sentences to put them in, for a checkpoint with a text tower.
        revision: branch, tag or commit on the hub.
        config_overrides: fields of the config to change before the model is built, such as
            ``{"use_mean_pooling": False}`` for BEiT read from the CLS token.
        dtype: floating-point type of the weights.
        allow_pickle: also accept ``pytorch_model.bin``; unpickling can run code, so only for files you trust.
        **kwargs: passed to ``from_pretrained`` (``attn_implementation``, ``device_map``).

    Raises:
        RequestError: unknown family, missing or mismatched weights, pickled weights, unreadable files.
    """
    where = found(source)
    with cache_alone_if_unreachable(where):
        loader = next(loader for loader in LOADERS if loader.claims(where))
        load, names = loader.load, list[Any]()
        if classes is not None:
            load, names = _with_text(loader, loader.load_text), [classes, templates]
        return load(
            where,
            source,
            *names,
            revision=revision,
            config_overrides=config_overrides,
            dtype=dtype,
            allow_pickle=allow_pickle,
            **kwargs,
        )


def adopt(
    module: nn.Module,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    tokenizer: Any = None,
) -> Checkpoint:
    """A loaded module as a `Checkpoint`.

    Args:
        module: of one of the libraries.
        classes, templates: as for `load_checkpoint`.
        tokenizer: the text tower's; None takes that of the checkpoint the module came from, where that is known.

    Raises:
        RequestError: no library's loader knows it, it is not in the family table, or it has no text tower for classes.
    """
    if isinstance(module, Classified):
        inner = adopt(module.backbone)
        layout = TokenLayout.of(inner.family.name, inner.sizes.prefix)
        whole, family = classified(inner.module, module.head.weight, module.head.bias, inner.family, layout)
        names = [f"LABEL_{i}" for i in range(module.head.out_features)]
        return replace(
            inner, module=whole.eval(), family=family, head_is_own=True, head_from="fitted", class_names=names
        )
    for loader in LOADERS:
        if loader.owns(module):
            if classes is None:
                return loader.adopt(module)
            return _with_text(loader, loader.adopt_text)(module, tokenizer, classes, templates)
    raise RequestError(
        f"{type(module).__name__} has no Hugging Face config and is of no other library known here; give a vision model of "
        f"{', '.join(loader.library for loader in LOADERS)}."
    )


def plain_of(checkpoint: Checkpoint) -> nn.Module | None:
    """The model of a checkpoint's source as its library loads it; None: as transformers does."""
    where = resolve(checkpoint.source)
    claimed = next(loader for loader in LOADERS if loader.claims(where)).plain
    load = (
        claimed or loader_of(checkpoint.family.library).plain
    )  # transformers reads the folders that wrap a timm model
    return None if load is None else load(checkpoint)


def fresh(module: Any, library: str) -> nn.Module:
    """A module of the same architecture with weights drawn anew, those of its classifier too."""
    if isinstance(module, Classified):
        head = nn.Linear(module.head.in_features, module.head.out_features)
        return Classified(fresh(module.backbone, library), head, module.family, module.layout)
    draw = loader_of(library).fresh
    return type(module)(module.config) if draw is None else draw(module)


def loader_of(library: str) -> Loader:
    """The loader of the library that a row names."""
    return next(loader for loader in LOADERS if loader.library == library)


def _with_text(loader: Loader, function: Callable[..., Checkpoint] | None) -> Callable[..., Checkpoint]:
    if function is None:
        raise RequestError(f"models of {loader.library} have no text tower, so class names can't be their classifier.")
    return function
