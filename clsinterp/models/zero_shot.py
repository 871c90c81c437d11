"""A two-tower model as a classifier of the classes one names: the vision tower, and the names' embeddings for a head.

The read-out is what the model's own image embedding is made of: the CLS token after the final norm (CLIP), or the pooled
tokens (SigLIP). The text tower is used once, for the names, and then let go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.families import find_family
from clsinterp.models.hf_config import described, overridden, read_config, sizes_of
from clsinterp.models.load_hf import load_processor, verified
from clsinterp.models.prompts import prompts
from clsinterp.models.rows import text
from clsinterp.models.text_head import TextHead
from clsinterp.models.text_towers import Encode, class_embeddings, hf_encoder
from clsinterp.models.unstable import commit_of

FIXED_LENGTH = ("siglip",)  # model types whose text tower was trained on prompts padded to its whole length


class ZeroShot(nn.Module):
    """A `transformers` vision tower with a `TextHead` on its pooled output."""

    def __init__(self, vision_model: Any, classifier: TextHead, config: Any) -> None:
        super().__init__()
        self.vision_model, self.classifier, self.config = vision_model, classifier, config

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """The cosine of the image with each class, times the temperature: CLIP's ``logits_per_image``."""
        return ImageClassifierOutput(logits=self.classifier(self.vision_model(pixel_values).pooler_output))


def load_text(
    where: str,
    source: str,
    classes: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    revision: str | None = None,
    config_overrides: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> Checkpoint:
    """Load both towers of a `transformers` checkpoint and make its zero-shot classifier.

    Args:
        where: the folder or hub id.
        source: what messages call it.
        classes, templates: as for `clsinterp.models.prompts.prompts`.
        revision, config_overrides, dtype, allow_pickle, **kwargs: as for `clsinterp.models.loading.load_checkpoint`.

    Raises:
        RequestError: no text tower or no tokenizer, or as `load_checkpoint` and `prompts`.
    """
    prompts(classes, templates)  # refuses before anything is loaded
    config = overridden(read_config(where, source, revision), source, config_overrides)
    family = described(config, source, config_overrides, text=_two_towers(config, source))
    model, *_ = verified(where, source, config, family, revision, dtype, allow_pickle, **kwargs)
    tokenizer = _tokenizer(where, source, revision)
    return _checkpoint(
        model,
        tokenizer,
        classes,
        templates,
        load_processor(where, revision),
        source,
        commit_of(config, where, revision),
    )


def adopt_text(
    module: nn.Module, tokenizer: Any, classes: Sequence[str], templates: Sequence[str] | None = None
) -> Checkpoint:
    """The zero-shot classifier of a loaded two-tower model of `transformers`, which is left as it is.

    Args:
        module: such as a ``CLIPModel``.
        tokenizer: its own; None takes that of the checkpoint it was loaded from.
        classes, templates: as for `clsinterp.models.prompts.prompts`.

    Raises:
        RequestError: a model without a text tower, no tokenizer, or as `prompts`.
    """
    config: Any = getattr(module, "config", None)
    if not hasattr(module, "text_model") or not hasattr(module, "vision_model"):
        raise _no_text_tower(type(module).__name__)
    name = getattr(config, "name_or_path", "") or ""
    if tokenizer is None:
        tokenizer = _tokenizer(name, name or f"this {type(module).__name__}", None)
    return _checkpoint(module, tokenizer, classes, templates, load_processor(name) if name else None, name, None)


def _checkpoint(
    model: Any,
    tokenizer: Any,
    classes: Sequence[str],
    templates: Sequence[str] | None,
    processor: Any,
    source: str,
    revision: str | None,
) -> Checkpoint:
    config = model.config
    family = find_family([type(model).__name__], config, text=True)
    room = config.text_config.max_position_embeddings
    encode = hf_encoder(model, tokenizer, room if config.model_type in FIXED_LENGTH else None)
    projection = model.visual_projection.weight if hasattr(model, "visual_projection") else None
    head = text_head(encode, classes, templates, model.logit_scale, getattr(model, "logit_bias", None), projection)
    return Checkpoint(
        ZeroShot(model.vision_model, head, config).eval(),
        family,
        sizes_of(family, config),
        processor,
        head_is_own=True,
        class_names=list(map(str, classes)),
        source=source,
        revision=revision,
        head_from="text",
    )


def text_head(
    encode: Encode,
    classes: Sequence[str],
    templates: Sequence[str] | None,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
    projection: Tensor | None,
) -> TextHead:
    """The classifier that two towers make: names and templates through `encode`, against the projected read-out.

    Args:
        encode: the text tower.
        classes, templates: as for `clsinterp.models.prompts.prompts`.
        logit_scale: the logarithm of the temperature's inverse, as such models hold it.
        logit_bias: SigLIP's, or None.
        projection: (d_embed, d_readout), or None where the pooled tokens are the embedding.
    """
    texts = class_embeddings(encode, classes, templates)
    bias = 0.0 if logit_bias is None else float(logit_bias.detach())
    return TextHead(texts, float(logit_scale.detach().exp()), bias, projection)


def _two_towers(config: Any, source: str) -> list[str]:
    """The class that holds both towers of a checkpoint of this type.

    Raises:
        RequestError: its type has no text tower.
    """
    for row in text.ROWS:
        if config.model_type == getattr(transformers, row.hf_class).config_class.model_type:
            return [row.hf_class]
    raise _no_text_tower(f"{source} ({config.model_type})")


def _no_text_tower(what: str) -> RequestError:
    return RequestError(
        f'{what} has no text tower, so class names can\'t be its classifier; classes= and head="text" are for '
        f'{", ".join(row.name.removesuffix("-text") for row in text.ROWS)} and open_clip. Use head="fit" to fit a head.'
    )


def _tokenizer(where: str, source: str, revision: str | None) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        RequestError: it has none that can be read.
    """
    try:
        found = transformers.AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
        why, cause = "no vocabulary", None
    except Exception as error:  # transformers, tokenizers and the hub raise a dozen kinds here
        found, why, cause = None, str(error).strip().splitlines()[0], error
    # transformers makes an empty one where there are no files.
    if found is None or set(found.get_vocab()) <= set(found.all_special_tokens):
        raise RequestError(
            f"{source} has no tokenizer that can be read, and class names need one: tokenizer.json (or vocab.json and "
            f"merges.txt, or spiece.model) is expected beside its weights. ({why})"
        ) from cause
    return found
