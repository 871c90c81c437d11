"""The loader of open_clip: hub folders with ``open_clip_config.json``, and its loaded models."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models import load_timm
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.classified import BACKBONE, HEAD, Classified
from clsinterp.models.config_check import MEND, refuse_fields, said
from clsinterp.models.hub_files import shapes_of
from clsinterp.models.open_clip_parts import (
    Processor,
    Untouched,
    encoder,
    projection_of,
    refuse_unknown,
    row_of,
    sizes_of,
)
from clsinterp.models.open_clip_vision import OpenClipVision, Projection
from clsinterp.models.prompts import prompts
from clsinterp.models.rows.open_clip import OPEN_CLIP, OPEN_CLIP_TEXT
from clsinterp.models.source import resolve
from clsinterp.models.tokens import TokenLayout
from clsinterp.models.weights_check import other_shape, refuse_more_layers, refuse_unplaced
from clsinterp.models.zero_shot import text_head

CONFIG = "open_clip_config.json"
SAFE = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLED = ("open_clip_pytorch_model.bin", "open_clip_model.bin")


def claims(where: str) -> bool:
    """Whether `where` has open_clip's config and not one of `transformers`, which is read where a repository has both."""
    return not _has(where, "config.json") and _has(where, CONFIG)


def owns(module: nn.Module) -> bool:
    """Whether `module` is a model of open_clip, or the vision tower of one."""
    return isinstance(module, OpenClipVision) or type(module).__module__.split(".")[0] == "open_clip"


def load(
    where: str,
    source: str,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    *,
    revision: str | None = None,
    config_overrides: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> Checkpoint:
    """Load the vision tower of `source`, with its image projection, or with class names for a classifier.

    Args:
        where, source, revision, config_overrides, dtype, allow_pickle: as for `clsinterp.models.loading.load_checkpoint`.
        classes, templates: as for `clsinterp.models.prompts.prompts`; without classes there is no classifier.
        **kwargs: none is known here.

    Raises:
        RequestError: open_clip is not installed, files are missing or don't fit, or a vision tower of another kind.
    """
    open_clip = _library()
    if other := sorted({**kwargs, **(config_overrides or {})}):
        raise RequestError(f"{', '.join(other)} was given, which a checkpoint of open_clip does not take.")
    if classes is not None:
        prompts(classes, templates)  # refuses before anything is loaded
    folder, weights = _files(where, source, revision, allow_pickle)
    model = _verified(open_clip, folder, weights, source)
    tokenizer = None
    if classes is not None:
        where_tokens = f"local-dir:{where}" if Path(where).is_dir() else f"hf-hub:{where}"
        tokenizer = _tokenizer(open_clip, where_tokens, source)
    made = _checkpoint(model.to(dtype), classes, templates, tokenizer)
    return replace(made, source=source, revision=None if Path(where).is_dir() else folder.name)


def _verified(open_clip: Any, folder: Path, weights: Path, source: str) -> Any:
    """The whole model, with every weight from the checkpoint.

    Raises:
        RequestError: what is missing or not finite, or why it cannot be read.
    """
    shapes = shapes_of(str(folder), source, None, also=SAFE)
    refuse_more_layers(json.loads((folder / CONFIG).read_text()), lambda: shapes, source, CONFIG)
    try:
        model = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_image=False, pretrained_text=False
        )
    except Exception as error:  # its constructors raise what they raise
        raise RequestError(f"{source}: open_clip can't build what {CONFIG} says: {said(error)}. {MEND}") from error
    for name, value in model.state_dict().items():  # open_clip itself would resample positions, and say nothing
        if shapes.get(name, tuple(value.shape)) != tuple(value.shape):
            raise other_shape(source, CONFIG, name, tuple(value.shape), shapes[name])
    try:
        found = open_clip.factory.load_checkpoint(model, str(weights), strict=False, weights_only=True)
    except Exception as error:  # open_clip, torch and safetensors raise a dozen kinds here
        raise RequestError(f"cannot load {source}: {said(error)}.") from error
    if found.missing_keys:
        lost = ", ".join(found.missing_keys[:6])
        raise RequestError(
            f"{source} lacks {len(found.missing_keys)} weights, which would stay random: {lost}. The checkpoint is incomplete, "
            f"or {CONFIG} belongs to another."
        )
    refuse_unplaced([name for name in found.unexpected_keys if name.startswith("visual.")], (), source, CONFIG)
    if broken := sorted(name for name, p in model.named_parameters() if not torch.isfinite(p).all()):
        raise RequestError(f"{source} has NaN or infinity in {len(broken)} weights: {', '.join(broken[:6])}.")
    return model.eval()


def plain(checkpoint: Checkpoint) -> nn.Module:
    """The vision tower of a checkpoint's source as open_clip itself loads it, read by the same classifier if there is one."""
    source = checkpoint.source
    folder, weights = _files(resolve(source), source, checkpoint.revision, allow_pickle=False)
    visual = _verified(_library(), folder, weights, source).visual
    if type(visual).__name__ == "TimmModel":
        return visual.trunk
    head = checkpoint.module.get_submodule("head")
    if isinstance(head, Projection):
        head = nn.Identity()
    else:  # a classifier, which has the projection in it, or none of both
        visual.proj = None
    return Untouched(visual, head).eval()


def fresh(module: nn.Module) -> nn.Module:
    """The same architecture with weights drawn anew; the head stays, since texts or a projection made it."""
    twin: Any = copy.deepcopy(module)
    for part in (twin.embed, twin.ln_pre, twin.blocks, twin.ln_post):
        for inner in part.modules():
            if hasattr(inner, "reset_parameters"):
                inner.reset_parameters()
    with torch.no_grad():
        for table in (twin.embed.class_embedding, twin.embed.positional_embedding):
            table.normal_(0, table.shape[-1] ** -0.5)
    return twin


def adopt(module: nn.Module) -> Checkpoint:
    """The vision tower of a loaded model, or one loaded alone; it shares its parameters and is left as it is.

    Raises:
        RequestError: a vision tower of another kind.
    """
    return _checkpoint(module, None, None, None)


def adopt_text(
    module: nn.Module, tokenizer: Any, classes: Sequence[str], templates: Sequence[str] | None = None
) -> Checkpoint:
    """A loaded two-tower model with class names for a classifier.

    Args:
        module: such as an open_clip ``CLIP``.
        tokenizer: of ``open_clip.get_tokenizer``.
        classes, templates: as for `clsinterp.models.prompts.prompts`.

    Raises:
        RequestError: no text tower, no tokenizer, or as `prompts`.
    """
    if not hasattr(module, "encode_text"):
        raise RequestError(
            f"{type(module).__name__} has no text tower; give the whole open_clip model, not its .visual."
        )
    if tokenizer is None:
        raise RequestError("class names need a tokenizer; pass tokenizer=open_clip.get_tokenizer(NAME).")
    return _checkpoint(module, classes, templates, tokenizer)


def _checkpoint(
    model: Any, classes: Sequence[str] | None, templates: Sequence[str] | None, tokenizer: Any
) -> Checkpoint:
    if isinstance(model, OpenClipVision):
        return Checkpoint(model, model.row, model.sizes, None, bool(model.row.heads), None, "", None)
    visual = model.visual if hasattr(model, "visual") else model
    if type(visual).__name__ == "TimmModel":
        return _of_timm(model, visual, classes, templates, tokenizer)
    refuse_unknown(visual)
    head: nn.Module = Projection(visual.proj) if visual.proj is not None else nn.Identity()
    if classes is not None:
        projection = None if visual.proj is None else visual.proj.mT
        scale, bias = model.logit_scale, getattr(model, "logit_bias", None)
        head = text_head(encoder(model, tokenizer), classes, templates, scale, bias, projection)
    config = getattr(visual, "preprocess_cfg", None)
    row, sizes = row_of(visual, OPEN_CLIP if classes is None else OPEN_CLIP_TEXT), sizes_of(visual)
    return Checkpoint(
        OpenClipVision(visual, head, row, sizes).eval(),
        row,
        sizes,
        None if config is None else Processor(config),
        head_is_own=classes is not None,
        class_names=None if classes is None else list(map(str, classes)),
        source="",
        revision=None,
        head_from=None if classes is None else "text",
    )


def _of_timm(
    model: Any, visual: Any, classes: Sequence[str] | None, templates: Sequence[str] | None, tokenizer: Any
) -> Checkpoint:
    """The timm model inside a vision tower, by its own row; class names read its pooled output through the projection."""
    made, projection = load_timm.adopt(visual.trunk), projection_of(visual)
    config = getattr(visual, "preprocess_cfg", None)
    made = replace(made, processor=made.processor if config is None else Processor(config))
    if classes is None:
        return made
    scale, bias = model.logit_scale, getattr(model, "logit_bias", None)
    head = text_head(encoder(model, tokenizer), classes, templates, scale, bias, projection)
    family, layout = made.family, TokenLayout.of(made.family.name, made.sizes.prefix)
    return replace(
        made,
        module=Classified(made.module, head, family, layout).eval(),
        family=replace(family.inside(BACKBONE, (HEAD,)), name=f"{family.name}-text", text=True),
        head_is_own=True,
        class_names=list(map(str, classes)),
        head_from="text",
    )


def _library() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise RequestError(
            "this is a checkpoint of open_clip, which is not installed: pip install 'clsinterp[open-clip]'."
        ) from error
    return open_clip


def _tokenizer(open_clip: Any, name: str, source: str) -> Any:
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # transformers, tokenizers and the hub raise a dozen kinds here
        raise RequestError(
            f"{source} has no tokenizer that can be read, and class names need one. ({str(error).strip().splitlines()[0]})"
        ) from error


def _files(where: str, source: str, revision: str | None, allow_pickle: bool) -> tuple[Path, Path]:
    """The folder with the config, and the weights in it.

    Raises:
        RequestError: no weights, or pickled ones that were not allowed.
    """
    names = SAFE + (PICKLED if allow_pickle else ())
    if Path(where).is_dir():
        folder = Path(where)
        found = [folder / name for name in names if (folder / name).is_file()]
    else:
        folder = Path(hf_hub_download(where, CONFIG, revision=revision)).parent
        found = [path for name in names if (path := _downloaded(where, name, revision))]
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError:
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise RequestError(f"{source} has an {CONFIG} without model_cfg. {MEND}")
    refuse_fields(config, source, CONFIG)
    if not found:
        raise RequestError(
            f"{source} has none of {', '.join(names)}."
            + ("" if allow_pickle else " If it ships only pickled weights and you trust them, pass allow_pickle=True.")
        )
    return folder, found[0]


def _downloaded(repo: str, name: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def _has(where: str, name: str) -> bool:
    """Whether a folder or hub repository has the file `name`; what cannot be reached has not."""
    if Path(where).is_dir():
        return (Path(where) / name).is_file()
    if isinstance(try_to_load_from_cache(where, name), str):
        return True
    try:
        hf_hub_download(where, name)
    except (HfHubHTTPError, OSError, ValueError):  # not there, no such repository, no network, not an id
        return False
    return True
