"""From class names to the directions a text tower gives them, whichever library the tower is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.models.prompts import prompts

if TYPE_CHECKING:
    from jaxtyping import Float

AT_ONCE = 256  # prompts in one pass of a text tower
Encode = Callable[[list[str]], Tensor]  # prompts -> their embeddings (prompt, d_embed)


@torch.no_grad()
def class_embeddings(
    encode: Encode, classes: Sequence[str], templates: Sequence[str] | None = None
) -> Float[Tensor, "classes d_embed"]:
    """One embedding of length one for each class: the mean of its prompts' embeddings, each brought to length one before.

    Args:
        encode: the text tower.
        classes, templates: as for `clsinterp.models.prompts.prompts`.

    Raises:
        RequestError: as `prompts` and `encode` do.
    """
    by_class = prompts(classes, templates)
    listed = [prompt for several in by_class for prompt in several]
    parts = [listed[i : i + AT_ONCE] for i in range(0, len(listed), AT_ONCE)]
    embedded = F.normalize(torch.cat([encode(part) for part in parts]), dim=-1)
    return F.normalize(embedded.unflatten(0, (len(by_class), -1)).mean(1), dim=-1)


def hf_encoder(model: Any, tokenizer: Any, fixed: int | None) -> Encode:
    """The text tower of a `transformers` model.

    Args:
        model: with ``get_text_features``.
        tokenizer: the checkpoint's own.
        fixed: the length every prompt is padded to, as SigLIP was trained; None pads to the longest (CLIP).
    """
    room = model.config.text_config.max_position_embeddings
    device = next(model.parameters()).device

    def encode(texts: list[str]) -> Tensor:
        by_text = tokenizer(texts)["input_ids"]
        refuse_long(texts, [len(ids) for ids in by_text], room)
        if (top := max(max(ids) for ids in by_text)) >= model.config.text_config.vocab_size:
            raise RequestError(
                f"the tokenizer gives token {top}, and the text tower knows {model.config.text_config.vocab_size}; it is "
                "another model's."
            )
        if fixed is None:
            found = tokenizer(texts, padding=True, return_tensors="pt")
        else:  # the tower reads the padding too
            found = {
                "input_ids": tokenizer(texts, padding="max_length", max_length=fixed, return_tensors="pt").input_ids
            }
        return model.get_text_features(**{name: value.to(device) for name, value in found.items()}).pooler_output

    return encode


def refuse_long(texts: list[str], lengths: list[int], room: int) -> None:
    """Refuse prompts that the text tower would have to cut.

    Raises:
        RequestError: one has more than `room` tokens.
    """
    for text, length in zip(texts, lengths, strict=True):
        if length > room:
            raise RequestError(
                f"{text!r} has {length} tokens, and the text tower reads {room}; give a shorter class name or template."
            )
