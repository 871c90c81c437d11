"""A file that says which class of the model each label of the data is."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clsinterp.data.names import places
from clsinterp.errors import RequestError

LabelMap = Mapping[str, str | int]  # label of the data -> name or index of the model's class
EXPECTED = "a JSON object or a two-column CSV, label of the data and the model's class (name or index)"


def read_label_map(given: LabelMap | str | Path) -> dict[str, str | int]:
    """The content of a label map: of a file (``.json``; anything else is read as CSV), or as given.

    Raises:
        RequestError: the file cannot be read, is not of that form, or gives a label twice.
    """
    if isinstance(given, Mapping):
        return _checked(given.items(), "the label map")
    path = Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = _of_json(text) if path.suffix.lower() == ".json" else _of_csv(text)
    except OSError as error:
        raise RequestError(f"cannot read label map {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise RequestError(f"label map {path}: {error}; {EXPECTED} is expected.") from error
    return _checked(pairs, f"label map {path}")


def _of_json(text: str) -> list[tuple[str, Any]]:
    found = json.loads(text, object_pairs_hook=list)  # pairs, so that a label given twice is seen
    if not text.lstrip().startswith("{"):
        raise ValueError("the top is not an object")
    return found


def _of_csv(text: str) -> list[tuple[str, str]]:
    lines = [line for line in csv.reader(text.splitlines(), skipinitialspace=True) if line]
    for line in lines:
        if len(line) != 2:
            raise ValueError(f"{','.join(line)!r} has {len(line)} columns")
    return [(label.strip(), name.strip()) for label, name in lines]


def _checked(pairs: Iterable[tuple[Any, Any]], what: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for label, value in pairs:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise RequestError(f"{what} gives {value!r} for label {label!r}; a class name or an index is expected.")
        if str(label) in found:
            raise RequestError(f"{what} gives label {label!r} twice.")
        found[str(label)] = value
    return found


def mapped(data: Sequence[str], model: Sequence[str], label_map: LabelMap) -> tuple[int, ...]:
    """The model's class of each label of the data; entries for labels that the data lacks are not looked at.

    A number in a string is a class of that name if there is one, else an index.

    Raises:
        RequestError: a label is not in the map, or its class is not the model's or not one only.
    """
    if absent := [label for label in data if label not in label_map]:
        raise RequestError(
            f"the label map has no entry for {', '.join(map(repr, absent[:5]))} ({len(absent)} of the data's {len(data)} "
            "labels); one for each is expected."
        )
    values = [label_map[label] for label in data]
    return tuple(
        _class_of(label, value, found, len(model))
        for label, value, found in zip(data, values, places([str(v) for v in values], model), strict=True)
    )


def _class_of(label: str, value: str | int, named: set[int], n: int) -> int:
    if isinstance(value, str) and len(named) == 1:
        return named.pop()
    if isinstance(value, str) and named:
        raise RequestError(
            f"the label map gives {value!r} for label {label!r}, the name of the model's classes "
            f"{', '.join(map(str, sorted(named)))}; give the index."
        )
    if isinstance(value, int) or value.isdecimal():
        if 0 <= int(value) < n:
            return int(value)
        raise RequestError(f"the label map gives {value} for label {label!r}; the model's classes are 0 to {n - 1}.")
    raise RequestError(f"the label map gives {value!r} for label {label!r}, which is none of the model's {n} classes.")
