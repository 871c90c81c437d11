"""Whether the model's classes are the data's classes, and which is which."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clsinterp.errors import RequestError


@dataclass(frozen=True)
class LabelMatch:
    """How labels of the data become classes of the classifier.

    Attributes:
        how: ``name`` (matched by normalised name), ``count`` (as many classes, taken in order) or ``fit`` (a head is
            fitted on the data's own classes).
        classes: for each label of the data, the classifier's class; the identity under ``count`` and ``fit``.
        note: a sentence for the manifest and the log.
    """

    how: str
    classes: tuple[int, ...]
    note: str


def _normalise(name: str) -> str:
    return re.sub(r"[\s_\-/]+", " ", name).strip().casefold()


def _first_synonym(name: str) -> str:
    return _normalise(name.split(",")[0])


def _by_name(data: Sequence[str], model: Sequence[str]) -> tuple[int, ...] | None:
    for key in (_normalise, _first_synonym):  # ImageNet names are lists of synonyms
        place = {key(name): i for i, name in enumerate(model)}
        wanted = [key(name) for name in data]
        if len(place) == len(model) and len(set(wanted)) == len(wanted) and all(name in place for name in wanted):
            return tuple(place[name] for name in wanted)
    return None


def match_labels(data: Sequence[str], model: Sequence[str] | None, head: str) -> LabelMatch:
    """Match the data's class names to the model's.

    Args:
        data: class names of the data.
        model: class names of the model's own classifier, or None without one.
        head: ``auto`` (own classifier if it fits, else fit one), ``own`` or ``fit``.

    Raises:
        RequestError: ``own`` was asked for, but there is no classifier, or its classes are others.
    """
    same = tuple(range(len(data)))
    if head == "fit":
        return LabelMatch("fit", same, "a head was fitted on the read-out features, as asked")
    if head not in ("auto", "own"):
        raise RequestError(f"head {head!r} was given; one of auto, own, fit is expected.")
    if model is None:
        if head == "own":
            raise RequestError("head='own' was given, but the checkpoint has no classifier; use head='fit'.")
        return LabelMatch("fit", same, "the checkpoint has no classifier: a head was fitted on its read-out features")
    classes = _by_name(data, model)
    if classes is not None:
        return LabelMatch("name", classes, f"all {len(data)} class names were found among the model's {len(model)}")
    if len(data) == len(model):
        return LabelMatch(
            "count",
            same,
            f"class names differ (data: {data[0]!r}, ..; model: {model[0]!r}, ..) but there are {len(data)} of each: "
            "taken in order",
        )
    if head == "own":
        raise RequestError(
            f"head='own' was given, but the data's {len(data)} classes ({data[0]!r}, ..) are not the model's "
            f"{len(model)} ({model[0]!r}, ..); use head='fit'."
        )
    return LabelMatch(
        "fit",
        same,
        f"the data's {len(data)} classes are not the model's {len(model)}: a head was fitted on the read-out features",
    )
