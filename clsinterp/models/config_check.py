"""What a checkpoint's config says, looked at field by field before anything is built by it.

One table serves every library: the same name means the same thing in all of them. A field that is not there, or null, is the
library's own business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clsinterp.errors import RequestError

MEND = "Mend the file, or take it from the checkpoint's source again."


def is_whole(value: Any, low: int = 1) -> bool:
    """Whether `value` is a whole number of at least `low`; True and 8.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether `value` is a finite number from `low` to `high`; True is none."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )


def _listed(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(fits, value))


def is_side(value: Any) -> bool:
    """Whether `value` is a size in pixels: a whole number above 0, or two, rows and columns."""
    return is_whole(value) or (_listed(value, is_whole) and len(value) == 2)


def pair(size: Any) -> tuple[int, int]:
    """Rows and columns of a size in pixels, as `is_side` takes it."""
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


def is_colour(value: Any, low: float = -math.inf) -> bool:
    """Whether `value` is a number for each of three channels, or one for all."""
    if is_number(value, low):
        return True
    return isinstance(value, list | tuple) and len(value) == 3 and all(is_number(v, low) for v in value)


def _are_names(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        places = sorted(int(key) for key in value)
    except (TypeError, ValueError):
        return False
    return places == list(range(len(value))) and all(
        isinstance(name, str) or is_whole(name, 0) for name in value.values()
    )


def _is_float_type(value: Any) -> bool:
    name = str(value).removeprefix("torch.")
    return not isinstance(value, int | float) and name in ("float16", "bfloat16", "float32", "float64", "auto")


def _is_activation(value: Any) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(value, str) and value in ACT2FN


Expected = tuple[Callable[[Any], bool], str]

COUNT: Expected = (is_whole, "a whole number above 0")
COUNTS: Expected = (
    lambda v: is_whole(v) or _listed(v, is_whole),
    "a whole number above 0",
)  # a list has one for each stage
MANY: Expected = (lambda v: is_whole(v, 0), "a whole number, 0 or more")
SIDE: Expected = (is_side, "a whole number above 0, or two: rows and columns")
SHARE: Expected = (lambda v: is_number(v, 0, 1), "a number from 0 to 1")
FINITE: Expected = (is_number, "a finite number")
FACTOR: Expected = (lambda v: is_number(v, 1e-12), "a number above 0")
FLAG: Expected = (lambda v: isinstance(v, bool), "true or false")
TEXT: Expected = (lambda v: isinstance(v, str), "a word")
CLASSES: Expected = (lambda v: _listed(v, lambda name: isinstance(name, str)) or v == [], "a list of class names")
NAMES: Expected = (_are_names, "a name for each class, numbered from 0 without holes")
MEAN: Expected = (is_colour, "a finite number for each of 3 channels")
STD: Expected = (lambda v: is_colour(v, 1e-6), "a number above 0 for each of 3 channels")

FIELDS: dict[str, Expected] = {
    name: expected
    for names, expected in (
        ("hidden_size num_hidden_layers intermediate_size num_channels vocab_size max_position_embeddings", COUNT),
        ("projection_dim pooler_output_size depth embed_dim in_chans width context_length head_width", COUNT),
        ("num_attention_heads num_heads layers heads", COUNTS),
        ("num_register_tokens n_cls_tokens num_labels num_classes reg_tokens", MANY),
        ("image_size patch_size img_size size", SIDE),
        ("layer_norm_eps rms_norm_eps hidden_dropout_prob attention_probs_dropout_prob attention_dropout", SHARE),
        ("drop_path_rate drop_rate attn_drop_rate", SHARE),
        ("crop_pct", (lambda v: is_number(v, 0.01, 2), "a share of the image, such as 0.9")),
        ("input_size", (lambda v: _listed(v, is_whole) and len(v) == 3, "channels, rows and columns")),
        ("initializer_range initializer_factor layer_scale_init_value layerscale_value init_values", FINITE),
        ("logit_scale_init_value", FINITE),
        ("mlp_ratio rope_theta", FACTOR),
        ("qkv_bias use_mean_pooling use_relative_position_bias use_shared_relative_position_bias use_swiglu_ffn", FLAG),
        ("use_absolute_position_embeddings use_mask_token return_dict output_hidden_states output_attentions", FLAG),
        ("model_type architecture", TEXT),
        ("hidden_act", (_is_activation, "the name of an activation that transformers has, such as gelu")),
        ("dtype torch_dtype", (_is_float_type, "a floating-point type such as float32")),
        ("architectures", CLASSES),
        ("id2label", NAMES),
        ("mean image_mean", MEAN),
        ("std image_std", STD),
    )
    for name in names.split()
}  # fmt: skip


def shown(value: Any) -> str:
    """`value` for a message, cut short."""
    if hasattr(value, "shortest_edge"):  # a size of transformers, most of whose fields are None
        value = {name: side for name, side in vars(value).items() if side is not None}
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:58]}.."


def said(error: Exception) -> str:
    """What an error says, in one line, cut short, without a full stop."""
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")


def fields_of(values: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, name, value) of every field of `FIELDS` in a mapping or a config object, and in the configs inside it."""
    held = values if isinstance(values, Mapping) else vars(values)
    for name, value in held.items():
        if name in FIELDS:
            yield f"{path}{name}", name, value
        elif name.endswith(("_config", "_cfg", "_args")) and (
            isinstance(value, Mapping) or hasattr(value, "model_type")
        ):
            yield from fields_of(value, f"{path}{name}.")


def refuse_fields(values: Any, source: str, file: str, given: Mapping[str, Any] | None = None) -> None:
    """Refuse a config with a field that is not what such a field can be.

    Args:
        values: the config: a mapping, or an object of `transformers`.
        source: what messages call the checkpoint.
        file: the config's name.
        given: fields that the user has changed.

    Raises:
        RequestError: the first such field, what it says and what is expected.
    """
    for path, name, value in fields_of(values):
        fits, expected = FIELDS[name]
        if value is not None and not fits(value):
            if name in (given or {}):
                raise RequestError(f"config {path}={shown(value)} was given; {expected} is expected.")
            raise RequestError(f"{source}: {file} has {path} {shown(value)}; {expected} is expected. {MEND}")


def refuse_misfits(config: Any, source: str, file: str = "config.json") -> None:
    """Refuse a vision config of `transformers` whose sizes don't fit each other.

    Raises:
        RequestError: heads that the width can't be divided among, or images smaller than a patch.
    """
    vision = getattr(config, "vision_config", config)
    width: Any = getattr(vision, "hidden_size", None)
    heads: Any = getattr(vision, "num_attention_heads", None)
    if is_whole(width) and is_whole(heads) and width % heads:
        raise RequestError(
            f"{source}: {file} has hidden_size {width} and num_attention_heads {heads}; a width that its heads divide is "
            f"expected. {MEND}"
        )
    image: Any = getattr(vision, "image_size", None)
    patch: Any = getattr(vision, "patch_size", None)
    if is_side(image) and is_side(patch) and any(side < of for side, of in zip(pair(image), pair(patch), strict=True)):
        raise RequestError(
            f"{source}: {file} has image_size {image} and patch_size {patch}; images of at least "
            f"one patch are expected. {MEND}"
        )
