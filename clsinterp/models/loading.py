"""From a source or a loaded module to a `Checkpoint`, by the loader of the library it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models import load_hf, load_timm
from clsinterp.models.checkpoint import Checkpoint, resolve
from clsinterp.models.classified import Classified, classified
from clsinterp.models.hub_reach import cache_alone_if_unreachable
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
    """

    library: str
    claims: Callable[[str], bool]
    owns: Callable[[nn.Module], bool]
    load: Callable[..., Checkpoint]
    adopt: Callable[[nn.Module], Checkpoint]
    plain: Callable[[Checkpoint], nn.Module] | None = None
    fresh: Callable[[nn.Module], nn.Module] | None = None


# The first that claims a source or owns a module has it; transformers, which takes what is left, stands last.
LOADERS: tuple[Loader, ...] = (
    Loader(
        "timm",
        load_timm.claims,
        load_timm.owns,
        load_timm.load,
        load_timm.adopt,
        plain=load_timm.plain,
        fresh=load_timm.fresh,
    ),
    Loader("transformers", lambda where: True, lambda module: hasattr(module, "config"), load_hf.load, load_hf.adopt),
)


def load_checkpoint(
    source: str,
    *,
    revision: str | None = None,
    config_overrides: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> Checkpoint:
    """Load `source` and refuse anything that would leave a backbone weight at its random initial value.

    Args:
        source: hub id, folder, or ``zoo/NAME``.
        revision: branch, tag or commit on the hub.
        config_overrides: fields of the config to change before the model is built, such as
            ``{"use_mean_pooling": False}`` for BEiT read from the CLS token.
        dtype: floating-point type of the weights.
        allow_pickle: also accept ``pytorch_model.bin``; unpickling can run code, so only for files you trust.
        **kwargs: passed to ``from_pretrained`` (``attn_implementation``, ``device_map``).

    Raises:
        RequestError: unknown family, missing or mismatched weights, pickled weights, unreadable files.
    """
    where = resolve(source)
    loader = next(loader for loader in LOADERS if loader.claims(where))
    with cache_alone_if_unreachable(where):
        return loader.load(
            where,
            source,
            revision=revision,
            config_overrides=config_overrides,
            dtype=dtype,
            allow_pickle=allow_pickle,
            **kwargs,
        )


def adopt(module: nn.Module) -> Checkpoint:
    """A loaded module as a `Checkpoint`.

    Raises:
        RequestError: no library's loader knows it, or it is not in the family table.
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
            return loader.adopt(module)
    raise RequestError(
        f"{type(module).__name__} has no Hugging Face config and is of no other library known here; give a vision model of "
        f"{', '.join(loader.library for loader in LOADERS)}."
    )


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
