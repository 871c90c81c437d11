"""A loaded checkpoint, and what a source (hub id, folder, ``zoo/NAME``) names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models.family import Family, Sizes
from clsinterp.models.wheels import SOURCES, fetched

ZOO = Path(__file__).parents[1] / "zoo"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        module: the library's model, in eval mode.
        family: its row of the table.
        sizes: how large it is.
        processor: the checkpoint's own image processing, or None: called with ``images=`` (RGB) and ``return_tensors="pt"`` it
            gives a mapping with ``pixel_values``.
        head_is_own: whether the checkpoint carried its classifier.
        class_names: names of the classifier's classes, in order; None where there is no classifier or no names.
        source: what was asked for.
        revision: the commit on the hub, or None for local weights.
        head_from: where a classifier that did not come with the weights is from: ``fitted`` or ``text``.
    """

    module: nn.Module
    family: Family
    sizes: Sizes
    processor: Any
    head_is_own: bool
    class_names: list[str] | None
    source: str
    revision: str | None
    head_from: str | None = None

    @property
    def head(self) -> str:
        """Where the classifier is from: ``own``, ``fitted``, ``text``, or ``none``."""
        return self.head_from or ("own" if self.head_is_own else "none")

    def fingerprint(self) -> str:
        """A hash of every weight, by name."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def zoo_names() -> list[str]:
    """Checkpoints that ship with the package."""
    return sorted(p.parent.name for p in ZOO.glob("*/config.json"))


def resolve(source: str) -> str:
    """The folder or hub id that `source` names.

    Raises:
        RequestError: an unknown zoo name, one that was not fetched yet, or a folder without ``config.json``.
    """
    if source.startswith("zoo/") and not Path(source).exists():
        name = source.removeprefix("zoo/")
        if name in SOURCES:
            if folder := fetched(name):
                return str(folder)
            raise RequestError(
                f"{source} does not ship with the package and was not fetched yet; run clsinterp zoo fetch {name} "
                f"(once; {SOURCES[name].megabytes} MB)."
            )
        if name not in zoo_names():
            raise RequestError(f"{source} is not in the zoo, which has: {', '.join([*zoo_names(), *SOURCES])}.")
        return str(ZOO / name)
    path = Path(source).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "open_clip_config.json")):
            raise RequestError(
                f"{source} is a folder without config.json; a checkpoint folder as written by save_pretrained is expected."
            )
        return str(path)
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise RequestError(f"{source} is neither a checkpoint folder nor a hub id such as google/vit-base-patch16-224.")
    return source
