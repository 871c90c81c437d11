"""A config against the weights beside it, by the names and shapes in their files' headers: nothing is built, no value is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models.config_check import MEND, fields_of, is_whole, said
from clsinterp.models.family import Family

Shapes = Mapping[str, tuple[int, ...]]
DEEP = 1000  # layers; no model that is known has as many
LAYERS = ("num_hidden_layers", "depth", "layers")

# What stands in a weight's name -> the fields that decide its shape.
DECIDES: tuple[tuple[str, str], ...] = (
    ("patch_embed", "hidden_size, num_channels and patch_size"),
    ("position", "image_size and patch_size"),
    ("pos_embed", "img_size and patch_size"),
    ("register", "num_register_tokens"),
    ("classifier", "id2label (num_labels)"),
    ("head", "num_classes"),
    ("mlp", "intermediate_size or mlp_ratio"),
    ("fc", "intermediate_size or mlp_ratio"),
)


def refuse_more_layers(config: Any, shapes: Callable[[], Shapes], source: str, file: str) -> None:
    """Refuse a config with more layers than the weights have tensors: building them would take for ever.

    Args:
        config: as in `clsinterp.models.config_check.fields_of`.
        shapes: gives those of the weights, by name; empty where they are not known. Asked only where there are more than `DEEP`.
        source, file: for the message.

    Raises:
        RequestError: the field, and how many tensors there are.
    """
    deep = [(path, n) for path, name, n in fields_of(config) if name in LAYERS and is_whole(n) and n > DEEP]
    n_tensors = len(shapes()) if deep else 0
    for path, value in deep:
        if n_tensors and value > n_tensors:
            raise RequestError(
                f"{source}: {file} has {path} {value}, but its weights are {n_tensors} tensors in all, and every layer has "
                f"several. {MEND}"
            )


def refuse_other_shapes(
    build: Callable[[], nn.Module], shapes: Shapes, may_lack: Iterable[str], source: str, file: str
) -> None:
    """Refuse a config that asks for a weight of another shape than it has, or for one larger than all there are.

    So much is said before memory is asked for. What else is missing, and under older names, shows when weights are loaded.

    Args:
        build: makes the model of the config; it is called on torch's meta device, where weights take no memory.
        shapes: of the weights, by name; names may be those of older releases, under which they are saved.
        may_lack: patterns of weights that need not be there.
        source, file: for the message.

    Raises:
        RequestError: the weight, its shape, and the fields that decide it; or what can't be built.
    """
    if not shapes:
        return
    try:
        with torch.device("meta"):
            module = build()
    except Exception as error:  # constructors raise what they raise
        raise RequestError(f"{source}: no model can be built as {file} says: {said(error)}. {MEND}") from error
    largest = max(map(math.prod, shapes.values()))
    for name, weight in module.named_parameters():
        asked = tuple(weight.shape)
        if shapes.get(name, asked) != asked:
            raise other_shape(source, file, name, asked, shapes[name])
        if math.prod(asked) > largest and not any(re.fullmatch(pattern, name) for pattern in may_lack):
            raise other_shape(source, file, name, asked, None)


def other_shape(
    source: str, file: str, name: str, asked: tuple[int, ...], there: tuple[int, ...] | None
) -> RequestError:
    """The refusal of a weight whose shape is not what the config says; `there` is None where none is as large as that."""
    found = "none of its weights is as large as that" if there is None else f"its weights have it as {_shape(there)}"
    fields = next((fields for part, fields in DECIDES if part in name), "hidden_size")
    return RequestError(
        f"{source}: {file} asks for {name} of another shape, {_shape(asked)}, and {found}. Look at {fields} in {file}; both "
        "files must come from one checkpoint."
    )


def refuse_left_out(unexpected: Iterable[str], row: Family, source: str, file: str = "config.json") -> None:
    """Refuse weights of blocks, embeddings or classifier that a config has no place for: without them the model is another.

    Args:
        unexpected: names of the weights that were not loaded.
        row: of the model; names begin where its paths do, or where those of its backbone alone do.
        source, file: for the message.

    Raises:
        RequestError: the weights, and what of the config they speak against.
    """
    roots = tuple(f"{path}." for one in (row, row.bare) for path in (one.blocks, one.embed, *one.heads))
    allowed = (*row.may_miss, r".*(relative_position_index|position_ids)")
    refuse_unplaced([name for name in unexpected if name.startswith(roots)], allowed, source, file)


def refuse_unplaced(unexpected: Iterable[str], allowed: Iterable[str], source: str, file: str) -> None:
    """`refuse_left_out` of names that all belong to the model; `allowed` are patterns of those that may be left out."""
    lost = sorted(name for name in unexpected if not any(re.fullmatch(pattern, name) for pattern in allowed))
    if lost:
        raise RequestError(
            f"{source} has {len(lost)} weights for which its {file} has no place, such as {lost[0]}: there are more layers, "
            f"biases, embeddings or classes than its fields say. {MEND}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"
