"""Configs of `transformers`: read, changed as asked, and looked at before anything is built by them."""

from __future__ import annotations

from typing import Any

import transformers

from clsinterp.errors import RequestError
from clsinterp.models.config_check import MEND, pair, refuse_fields, refuse_misfits, said, shown
from clsinterp.models.families import find_family
from clsinterp.models.family import Family, Sizes
from clsinterp.models.hub_files import shapes_of
from clsinterp.models.weights_check import refuse_more_layers

FILE = "config.json"


def read_config(where: str, source: str, revision: str | None) -> Any:
    """The config at `where`, which messages call `source`.

    Raises:
        RequestError: unreadable, of a type that transformers does not know, or a field that says nothing transformers takes.
    """
    raw = None
    try:
        raw, _ = transformers.PreTrainedConfig.get_config_dict(where, revision=revision)
        # Before the config is made: some of its classes list a name for each layer.
        refuse_more_layers(raw, lambda: shapes_of(where, source, revision), source, FILE)
        config = transformers.AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
    except RequestError:
        raise
    except Exception as error:  # transformers, its validators and the hub raise a dozen kinds here
        raise _explained(error, raw, source) from error
    names = config.architectures
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise RequestError(
            f"{source}: {FILE} has architectures {shown(names)}; a list of class names is expected. {MEND}"
        )
    return config


def _explained(error: Exception, raw: Any, source: str) -> RequestError:
    """Why a config can't be read, by the field where that is known."""
    if not isinstance(raw, dict):
        if "JSON" in str(error) or not isinstance(error, OSError):
            return RequestError(f"{source}: {FILE} is not a JSON object. {MEND}")
        return RequestError(f"cannot read the config of {source}: {said(error)}")
    kind = raw.get("model_type")
    try:
        if isinstance(kind, str) and kind in transformers.CONFIG_MAPPING:
            refuse_fields(raw, source, FILE)
    except RequestError as field:
        return field
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        return RequestError(
            f"{source} is of type {shown(kind)}, which transformers does not know without running code from the "
            "checkpoint; this package never does that."
        )
    return RequestError(f"cannot read the config of {source}: {said(error)}. {MEND}")


def overridden(config: Any, source: str, changes: dict[str, Any] | None) -> Any:
    """`config` with some fields changed, in place.

    Raises:
        RequestError: a field that it does not have, or a value that the field can't have.
    """
    for key, value in (changes or {}).items():
        if not hasattr(config, key):
            raise RequestError(f"the config of {source} has no field {key!r} to override.")
        try:
            setattr(config, key, value)
        except Exception as error:  # validators of the config's own
            raise RequestError(f"config {key}={shown(value)} was given: {said(error)}.") from error
    return config


def described(config: Any, source: str, changes: dict[str, Any] | None = None, text: list[str] | None = None) -> Family:
    """The row for a config, whose fields are looked at one by one; how outputs are packed is set to what the package reads.

    Args:
        config: the checkpoint's, changed as asked.
        source: what messages call the checkpoint.
        changes: the fields that were changed.
        text: the class that holds both towers, where class names are to be the classifier.

    Raises:
        RequestError: no row, or a field that is not what it can be, or does not fit another.
    """
    family = find_family(text or config.architectures, config, text=text is not None)
    _refuse_other_type(config, [name for name in text or config.architectures if name in family.architectures], source)
    refuse_fields(config, source, FILE, changes)
    refuse_misfits(config, source)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:  # a choice of form: no number depends on it
            part.return_dict, part.output_hidden_states, part.output_attentions = True, False, False
    return family


def _refuse_other_type(config: Any, classes: list[str], source: str) -> None:
    """Refuse a config of another type than the classes it names: fields that the type lacks would silently be defaults."""
    wanted = [getattr(transformers, name).config_class for name in classes]
    able = {type(config), *(part for part in config.sub_configs.values())}
    if not any(kind in able for kind in wanted):
        raise RequestError(
            f"{source}: {FILE} names {', '.join(classes)} but has model_type {config.model_type!r}; "
            f"{' or '.join(dict.fromkeys(repr(kind.model_type) for kind in wanted))} is expected. {MEND}"
        )


def sizes_of(family: Family, config: Any) -> Sizes:
    """The sizes that a config of `transformers` says."""
    vision = getattr(config, "vision_config", config)
    counts = ((group, getattr(vision, n) if isinstance(n, str) else n) for group, n in family.prefix)
    return Sizes(
        n_layers=vision.num_hidden_layers,
        d_model=vision.hidden_size,
        n_heads=vision.num_attention_heads,
        patch=pair(vision.patch_size),
        image=pair(vision.image_size),
        channels=getattr(vision, "num_channels", 3),
        prefix=tuple((group, n) for group, n in counts if n),
    )


def names_of(config: Any) -> list[str]:
    """The class names of a config, in order."""
    return [str(config.id2label[i]) for i in range(len(config.id2label))]
