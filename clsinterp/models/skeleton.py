"""A checkpoint without its weights: enough to write traces against, when the weights are on a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers

from clsinterp.errors import RequestError
from clsinterp.models import load_timm
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.hf_config import described, names_of, read_config, sizes_of
from clsinterp.models.load_hf import load_processor
from clsinterp.models.source import resolve
from clsinterp.models.unstable import commit_of, from_config


def load_skeleton(source: str, *, revision: str | None = None, **kwargs: Any) -> Checkpoint:
    """The architecture that the config of `source` describes, on torch's meta device. No weight is read or downloaded.

    The classifier counts as the checkpoint's own if the config names the class that has one.

    Args:
        source: hub id, folder, or ``zoo/NAME``.
        revision: branch, tag or commit on the hub.
        **kwargs: as in ``from_pretrained``; only ``attn_implementation`` means something without weights.

    Raises:
        RequestError: an unknown family, or a checkpoint that a server loads as another class than this package does.
    """
    if other := sorted(set(kwargs) - {"attn_implementation"}):
        raise RequestError(f"{', '.join(other)} cannot be given for a model on a server, which loads it itself.")
    where = resolve(source)
    if load_timm.claims(where):
        raise RequestError(
            f"{source} is a timm model, whose names inside are others on a server; run it without remote=."
        )
    config = read_config(where, source, revision)
    family = described(config, source)
    hf_class = getattr(transformers, family.hf_class)
    if family.made_from or not isinstance(config, hf_class.config_class):
        raise RequestError(
            f"{source} is a {', '.join(config.architectures)}, which this package loads as {family.hf_class}; a server loads "
            "it as it is, so its traces would not fit there. Run it without remote=."
        )
    with torch.device("meta"):
        module = from_config(hf_class, config, **kwargs)
    head_is_own = bool(family.heads) and family.hf_class in (config.architectures or ())
    if not head_is_own:  # the server draws a classifier at random there, which is not to be read
        family = replace(family, heads=())
    return Checkpoint(
        module.eval(),
        family,
        sizes_of(family, config),
        load_processor(where, revision),
        head_is_own,
        names_of(config) if head_is_own else None,
        source,
        commit_of(config, where, revision),
    )
