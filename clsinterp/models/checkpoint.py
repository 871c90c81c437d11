"""A loaded checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clsinterp.models.family import Family, Sizes


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
