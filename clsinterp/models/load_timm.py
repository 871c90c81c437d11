"""The loader of timm: its hub ids and folders (also those that `transformers` wraps), and its loaded modules."""

from __future__ import annotations

import copy
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clsinterp.data.imagenet import synsets
from clsinterp.data.timm_transform import TimmTransform
from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.config_check import MEND, refuse_fields
from clsinterp.models.hub_files import commit_in, hub_file, read_weights, shapes_of
from clsinterp.models.rows.timm import has_plain_patches, misfit, row_of, sizes_of
from clsinterp.models.source import resolve
from clsinterp.models.weights_check import other_shape, refuse_left_out, refuse_more_layers

logger = logging.getLogger(__name__)
FILE = "config.json"
HEADS = ("head.", "head_dist.")
WRAPPED = "timm_model."  # what transformers puts before the names of a wrapped model's weights


def claims(where: str) -> bool:
    """Whether a folder holds a timm model by its ``config.json``, or a hub id is one of timm's."""
    if not Path(where).is_dir():
        return where.startswith("timm/")
    try:
        config = json.loads((Path(where) / "config.json").read_text())
        return "architecture" in config and config.get("model_type") in (None, "timm_wrapper")
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def owns(module: nn.Module) -> bool:
    """Whether a loaded module is timm's, or `transformers`' wrapper around one."""
    return type(_unwrapped(module)).__module__.startswith("timm.")


def _unwrapped(module: Any) -> Any:
    return module.timm_model if type(module).__name__.startswith("TimmWrapper") else module


def load(
    where: str,
    source: str,
    *,
    revision: str | None = None,
    config_overrides: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> Checkpoint:
    """Build the model that ``config.json`` describes as timm does, and give it its weights, every one of them.

    Args:
        where: the folder or hub id.
        source: what messages call it.
        revision: branch, tag or commit on the hub.
        config_overrides: arguments of ``timm.create_model`` to change, such as ``{"img_size": 384}``.
        dtype: floating-point type of the weights.
        allow_pickle: also accept ``pytorch_model.bin``.
        attn_implementation: ``sdpa`` (timm's fused attention) or ``eager``; default as timm decides.
        **kwargs: there are no others.

    Raises:
        RequestError: timm is not installed, a model that no row describes, missing or mismatched weights, pickled weights,
            unreadable files, options that timm does not have.
    """
    if kwargs:
        raise RequestError(f"{', '.join(kwargs)} was given, which loading a timm model does not know; leave it out.")
    _need_timm(source)
    folder = hub_file(where, FILE, source, revision).parent
    overrides = dict(config_overrides or {})
    config = _config(folder, source)
    for said in (config, overrides):
        refuse_fields(said, source, FILE, overrides)
        refuse_more_layers(said, lambda: shapes_of(where, source, revision), source, FILE)
    skeleton = _built(folder, source, overrides, torch.device("meta"))
    if reason := misfit(skeleton):
        raise RequestError(f"{source} is a timm model that is not supported: {reason}.")
    if hasattr(skeleton, "dynamic_img_size") and has_plain_patches(skeleton):
        # At its own size such a model gives the same, bit by bit; and it takes images of other sizes.
        overrides["dynamic_img_size"] = True
    weights = read_weights(where, source, revision, allow_pickle, also=_also(skeleton))
    weights = {name.removeprefix(WRAPPED): value for name, value in weights.items()}
    weights = _as_timm_would(skeleton, weights)
    lost = set(skeleton.state_dict()) - set(weights)
    if lost and all(name.startswith(HEADS) for name in lost):
        overrides["num_classes"] = 0  # the config speaks of a classifier that was not saved
    for name, value in skeleton.state_dict().items():
        if name in weights and weights[name].shape != value.shape:
            raise other_shape(source, FILE, name, tuple(value.shape), tuple(weights[name].shape))
    module = _built(folder, source, overrides)
    _give(module, weights, source)
    _choose_kernel(module, attn_implementation)
    return _checkpoint(module.to(dtype), config, source, commit_in(folder, where))


def adopt(module: nn.Module) -> Checkpoint:
    """A loaded timm model, or the one inside `transformers`' wrapper, as a `Checkpoint`; its classifier is its own.

    Raises:
        RequestError: no row describes it.
    """
    inner = _unwrapped(module)
    if reason := misfit(inner):
        raise RequestError(f"this {type(inner).__name__} is a timm model that is not supported: {reason}.")
    config: dict[str, Any] = dict(getattr(inner, "pretrained_cfg", None) or {})
    if inner is not module:
        names = getattr(module.config, "id2label", None) or {}
        config["label_names"] = [names[i] for i in range(len(names))]
    return _checkpoint(inner, config, getattr(getattr(module, "config", None), "name_or_path", "") or "", None)


def fresh(module: Any) -> nn.Module:
    """The same architecture as a timm model with weights drawn anew, as for training."""
    twin = copy.deepcopy(module)
    twin.init_weights()
    return twin


def plain(checkpoint: Checkpoint) -> nn.Module:
    """The model of a checkpoint's source as timm itself loads it, with the options that this one was built with."""
    import timm
    from timm.models import get_model_args

    where = resolve(checkpoint.source)
    folder = hub_file(where, "config.json", checkpoint.source, checkpoint.revision).parent
    arguments = get_model_args(checkpoint.module)
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments).eval()


def _config(folder: Path, source: str) -> dict[str, Any]:
    """What ``config.json`` in `folder` says."""
    try:
        config = json.loads((folder / FILE).read_text())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RequestError(f"{source}: {FILE} is not a JSON object. {MEND}")
    return config


def _need_timm(source: str) -> None:
    try:
        import timm  # noqa: F401 - asked for, not used here
    except ImportError as error:
        raise RequestError(
            f"{source} is a timm model, which needs timm: pip install 'clsinterp[timm]' ({error})."
        ) from error


def _built(folder: Path, source: str, overrides: dict[str, Any], device: torch.device | None = None) -> Any:
    """The model of ``config.json`` in `folder`, its weights random."""
    import timm

    try:
        with device or torch.device("cpu"):
            return timm.create_model(f"local-dir:{folder}", pretrained=False, **overrides)
    except Exception as error:  # timm raises what its constructors raise
        options = f" with {overrides}" if overrides else ""
        raise RequestError(f"timm cannot build {source}{options}: {type(error).__name__}: {error}.") from error


def _also(module: Any) -> tuple[str, ...]:
    """The file that the config names for weights, where it names one."""
    name = (getattr(module, "pretrained_cfg", None) or {}).get("hf_hub_filename")
    return (name,) if name and name.endswith(".safetensors") else ()


def _as_timm_would(module: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names, and with the position tables of the size, that timm gives them when it loads them."""
    change = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return weights if change is None else change(weights, module)


def _give(module: Any, weights: dict[str, Tensor], source: str) -> None:
    """Load `weights`, and refuse anything that would leave a weight as it was drawn."""
    wanted = module.state_dict()
    cls = type(module).__name__
    if lost := sorted(set(wanted) - set(weights)):
        raise RequestError(
            f"{source} lacks {len(lost)} weights of {cls}, which would stay random: {_some(lost)}. "
            "The checkpoint is incomplete, or belongs to another architecture."
        )
    if more := sorted(set(weights) - set(wanted)):
        refuse_left_out(more, row_of(module), source, FILE)
        logger.warning("%s has weights that its %s does not use: %s", source, cls, _some(more))
    module.load_state_dict({name: weights[name] for name in wanted})
    if broken := sorted(name for name, p in module.named_parameters() if not torch.isfinite(p).all()):
        raise RequestError(f"{source} has NaN or infinity in {len(broken)} weights: {_some(broken)}.")


def _some(names: list[str], n: int = 6) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _choose_kernel(module: nn.Module, kernel: str | None) -> None:
    if kernel is None:
        return
    if kernel not in ("eager", "sdpa"):
        raise RequestError(f"attn_implementation={kernel!r} was given; timm has eager and sdpa.")
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = kernel == "sdpa"  # type: ignore[assignment]


def _checkpoint(module: Any, config: dict[str, Any], source: str, revision: str | None) -> Checkpoint:
    """What is known of `module`."""
    from timm.data import resolve_data_config
    from timm.models import get_model_input_config

    module = with_whole_bias(module.eval())
    family = row_of(module)
    image = tuple(get_model_input_config(module)["input_size"][1:])
    if not family.any_size or not getattr(module, "pretrained_cfg", None):
        image = tuple(module.patch_embed.img_size)
    data = resolve_data_config(pretrained_cfg=dict(getattr(module, "pretrained_cfg", None) or {}), model=module)
    processor = TimmTransform.of({**data, "input_size": (module.in_chans, *image)})
    return Checkpoint(
        module=module,
        family=family,
        sizes=sizes_of(module, image),
        processor=processor,
        head_is_own=bool(family.heads),
        class_names=class_names(config, module.num_classes) if family.heads else None,
        source=source,
        revision=revision,
    )


def with_whole_bias(module: Any) -> Any:
    """A model whose query-key-value maps hold their bias themselves, sharing all other weights with `module`.

    BEiT and EVA keep the biases of queries and values apart and join them in a call of their own, past the map, so nothing
    could be read or written there. A map that has the joined bias computes the same, bit by bit.
    """
    if all(getattr(block.attn, "q_bias", None) is None for block in module.blocks):
        return module
    tensors = [*module.parameters(), *module.buffers()]
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for block in twin.blocks:
        attn = block.attn
        attn.qkv.bias = nn.Parameter(torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]).detach())
        attn.q_bias = attn.v_bias = None
    return twin


def class_names(config: dict[str, Any], n: int) -> list[str]:
    """Names of a classifier's `n` classes: the config's own; ImageNet's where their number says so; else ``LABEL_0``, .."""
    told = {**(config.get("pretrained_cfg") or {}), **config}
    names, described = told.get("label_names"), told.get("label_descriptions")
    if names and len(names) == n:
        return [str(described.get(name, name)) if isinstance(described, dict) else str(name) for name in names]
    if n == len(synsets()):
        return list(synsets().values())
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if subset := infer_imagenet_subset({"num_classes": n}):
        return list(ImageNetInfo(subset).label_descriptions())
    return [f"LABEL_{i}" for i in range(n)]
