"""The loader of `transformers`: Hugging Face folders and ids, and its loaded modules."""

from __future__ import annotations

import copy
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.config_check import MEND, said
from clsinterp.models.families import find_family
from clsinterp.models.family import Family
from clsinterp.models.hf_classes import fitting, from_pretrained, loaded_as, renamed
from clsinterp.models.hf_config import FILE, described, names_of, overridden, read_config, sizes_of
from clsinterp.models.hub_files import shapes_of
from clsinterp.models.processor_check import FILE as PROCESSOR
from clsinterp.models.unstable import commit_of, from_config
from clsinterp.models.weights_check import other_shape, refuse_left_out, refuse_more_layers, refuse_other_shapes

logger = logging.getLogger(__name__)


def load(
    where: str,
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
        where: the folder or hub id.
        source: what messages call it.
        revision: branch, tag or commit on the hub.
        config_overrides: fields of the config to change before the model is built, such as
            ``{"use_mean_pooling": False}`` for BEiT read from the CLS token.
        dtype: floating-point type of the weights.
        allow_pickle: also accept ``pytorch_model.bin``; unpickling can run code, so only for files you trust.
        **kwargs: passed to ``from_pretrained`` (``attn_implementation``, ``device_map``).

    Raises:
        RequestError: unknown family, missing or mismatched weights, pickled weights, unreadable files.
    """
    config = read_config(where, source, revision)
    if config.model_type == "timm_wrapper":  # a hub id that does not say so
        from clsinterp.models import load_timm

        return load_timm.load(
            where,
            source,
            revision=revision,
            config_overrides=config_overrides,
            dtype=dtype,
            allow_pickle=allow_pickle,
            **kwargs,
        )
    config = overridden(config, source, config_overrides)
    family = described(config, source, config_overrides)
    module, heads, norms = verified(where, source, config, family, revision, dtype, allow_pickle, **kwargs)
    module, family = fitting(module, family, has_head=not heads, has_norm=not norms)
    return Checkpoint(
        module.eval(),
        family,
        sizes_of(family, config),
        load_processor(where, revision),
        head_is_own=bool(family.heads),
        class_names=names_of(config) if family.heads else None,
        source=source,
        revision=commit_of(config, where, revision),
    )


def verified(
    where: str,
    source: str,
    config: Any,
    family: Family,
    revision: str | None,
    dtype: torch.dtype,
    allow_pickle: bool,
    **kwargs: Any,
) -> tuple[nn.Module, set[str], set[str]]:
    """The model that `family` names, with every weight of its backbone from the checkpoint.

    Args:
        where, source, revision, dtype, allow_pickle, **kwargs: as for `load`.
        config: the checkpoint's.
        family: its row.

    Returns:
        The model; weights of its heads that the checkpoint lacks; and, without heads, those of the norm before them.

    Raises:
        RequestError: missing, mismatched, non-finite or pickled weights, unreadable files, weights that no device holds.
    """
    shapes = {} if allow_pickle else shapes_of(where, source, revision)
    refuse_more_layers(config, lambda: shapes, source, FILE)
    hf_class, its_config = loaded_as(family, copy.deepcopy(config))
    may_lack = (*family.may_miss, *(rf"{re.escape(head)}\..*" for head in family.heads))
    refuse_other_shapes(lambda: from_config(hf_class, its_config), shapes, may_lack, source, FILE)
    options = {"revision": revision, "dtype": dtype, "use_safetensors": None if allow_pickle else True, **kwargs}
    loud = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what is missing is said below; what is too much is the other tower's
    try:
        module, info = from_pretrained(family, where, config, **options)
    except Exception as error:  # transformers, safetensors and the hub raise a dozen kinds here
        raise _explain(source, error, allow_pickle) from error
    finally:
        transformers.logging.set_verbosity(loud)
    _refuse_offloaded(module, kwargs.get("device_map"), source)
    missing = set(info["missing_keys"])
    heads = {key for key in missing if key.startswith(tuple(f"{h}." for h in family.heads))}
    allowed = {key for key in missing - heads if any(re.fullmatch(p, key) for p in family.may_miss)}
    norm = f"{family.lens_norm}." if family.ln_final is None and heads else None  # of what a classifier would read
    norms = {key for key in missing if norm and renamed(key, family.weight_names).startswith(norm)}
    if lost := sorted(missing - heads - allowed - norms):
        raise RequestError(
            f"{source} lacks {len(lost)} weights of {family.hf_class}, which would stay random: {_some(lost)}. "
            "The checkpoint is incomplete, or belongs to another architecture."
        )
    if mismatched := info.get("mismatched_keys"):
        name, there, asked = min(mismatched)
        raise other_shape(source, FILE, name, tuple(asked), tuple(there))
    # A text head is put in later; a classifier beside the towers is no loss.
    built = {path for path, _ in module.named_modules()}
    refuse_left_out(
        info["unexpected_keys"], replace(family, heads=tuple(h for h in family.heads if h in built)), source
    )
    if broken := sorted(name for name, p in module.named_parameters() if not torch.isfinite(p).all()):
        # Refused here because it need not show later: fused attention kernels can turn NaN scores into zeros.
        raise RequestError(f"{source} has NaN or infinity in {len(broken)} weights: {_some(broken)}.")
    if allowed:
        logger.info("%s: initialised as the family allows: %s", source, ", ".join(sorted(allowed)))
    return module.eval(), heads, norms


def adopt(module: nn.Module) -> Checkpoint:
    """A loaded module as a `Checkpoint`; a classifier that it has counts as its own.

    Raises:
        RequestError: a class that is not in the family table, or one whose outputs have no names.
    """
    config: Any = module.config
    if config.return_dict is False:
        raise RequestError(f"this {type(module).__name__} has config.return_dict=False; set it to True.")
    module, family = fitting(module, find_family([type(module).__name__], config))
    name = getattr(config, "name_or_path", "") or ""
    return Checkpoint(
        module.eval(),
        family,
        sizes_of(family, config),
        load_processor(name) if name else None,
        head_is_own=bool(family.heads),
        class_names=names_of(config) if family.heads else None,
        source=name,
        revision=None,
    )


def load_processor(where: str, revision: str | None = None) -> Any:
    """The checkpoint's image processor on the PIL backend, or None if it ships none that transformers knows.

    The PIL backend is asked for by name: torchvision resizes a little differently, so pixels would
    depend on what happens to be installed.

    Raises:
        RequestError: it ships one that cannot be read.
    """
    try:
        return transformers.AutoImageProcessor.from_pretrained(where, revision=revision, backend="pil")
    except Exception as error:  # on a file that is no JSON object, or has fields of other kinds, it raises what it does
        if (Path(where) / PROCESSOR).is_file() and not str(error).startswith("Unrecognized image processor"):
            raise RequestError(f"{where}: {PROCESSOR} cannot be read: {said(error)}. {MEND}") from error
        if not isinstance(error, OSError | ValueError):
            raise
        logger.warning("%s has no usable image processor: %s", where, _first_line(error))
        return None


def _refuse_offloaded(module: nn.Module, device_map: Any, source: str) -> None:
    """Refuse a plan that leaves weights where nothing computes: accelerate brings those in block by block, in its own forward.

    Raises:
        RequestError: as said.
    """
    weights = dict(module.named_parameters())
    if away := sorted(name for name, p in weights.items() if p.is_meta):
        raise RequestError(
            f"device_map={device_map!r} was given for {source}, which leaves {len(away)} of {len(weights)} weights on no device "
            f"that computes (on disk, or offloaded): {_some(away)}. All of them are expected in the memory of devices. Try "
            'dtype="bfloat16", more or larger GPUs, or no device_map= and device="cpu".'
        )


def _explain(source: str, error: Exception, allow_pickle: bool) -> RequestError:
    text = _first_line(error)
    if not allow_pickle and "safetensors" in text:
        return RequestError(
            f"{source} has no usable safetensors weights ({text}). "
            "If it ships only pickled weights and you trust them, pass allow_pickle=True."
        )
    return RequestError(f"cannot load {source}: {text}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _some(names: list[str], n: int = 6) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
