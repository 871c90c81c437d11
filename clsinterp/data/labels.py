"""Whether the model's classes are the data's classes, and which is which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsinterp.data.imagenet import are_wnids, in_words
from clsinterp.data.label_map import EXPECTED, LabelMap, mapped, read_label_map
from clsinterp.data.names import normalise, number, places, same
from clsinterp.errors import RequestError

MANY, NEARLY = 100, 0.99  # from so many classes on, lists that agree in so large a share of places are one list
WAYS_OUT = f'Use head="fit" to fit a head on the read-out features, or label_map=FILE ({EXPECTED}).'


@dataclass(frozen=True)
class LabelMatch:
    """How labels of the data become classes of the classifier.

    Attributes:
        how: ``name`` (matched by name), ``count`` (the names say nothing: taken in order), ``map`` (a label map said so),
            ``fit`` (a head is fitted on the data's own classes) or ``text`` (a text tower reads their names).
        classes: for each label of the data, the classifier's class; the identity under ``fit`` and ``text``.
        note: a sentence for the manifest and the log.
    """

    how: str
    classes: tuple[int, ...]
    note: str


def match_text(data: Sequence[str], named: Sequence[str] | None) -> LabelMatch:
    """The match where the model's classes were made of names of the data's.

    Args:
        data: class names of the data.
        named: the names that the text tower is to read in their place, or None.

    Raises:
        RequestError: not a name for each class.
    """
    if named is not None and len(named) != len(data):
        raise RequestError(f"classes has {len(named)} names; the data have {len(data)} classes ({data[0]!r}, ..).")
    whose = "the data's class names" if named is None else "the names given for the data's classes"
    return LabelMatch("text", tuple(range(len(data))), f"the checkpoint's text tower read {whose}")


def match_labels(
    data: Sequence[str], model: Sequence[str] | None, head: str, label_map: LabelMap | str | Path | None = None
) -> LabelMatch:
    """Match the data's class names to the model's.

    Lists that are the same are matched place by place, also where a name stands twice. Else each label of the data must
    be the name of one class: the whole name, its first synonym or any (ImageNet's names are lists of synonyms), whatever
    the case and the separators; numbers by value, WordNet ids by ImageNet's list. Where that fails and the names on one
    side say nothing (numbers, ``LABEL_3``, WordNet ids that are not ImageNet's), as many classes are taken in order,
    numbers by value, so 1 to 10 are the classes 0 to 9. Numbers are class indices only if they start at 0, leave gaps and
    are at least half of the classes: 0, 1, 2 are more likely classes of their own.

    Args:
        data: class names of the data.
        model: class names of the model's own classifier, or None without one.
        head: ``auto`` (own classifier if it fits, else fit one), ``own`` or ``fit``.
        label_map: label of the data -> the model's class, or a file that says so (`read_label_map`).

    Raises:
        RequestError: ``own`` was asked for, but there is no classifier, or its classes are others; as many classes by
            other names; a name that is not one class only; a label map that does not fit.
    """
    if head not in ("auto", "own", "fit"):
        raise RequestError(f"head {head!r} was given; one of auto, own, fit is expected.")
    if label_map is not None and (head == "fit" or model is None):
        lacking = (
            'head="fit" was given, which has the data\'s own' if head == "fit" else "the checkpoint has no classifier"
        )
        raise RequestError(f"label_map was given to name classes of the model, but {lacking}; leave one of them out.")
    if head == "fit":
        return _fit(data, "a head was fitted on the read-out features, as asked")
    if model is None:
        if head == "own":
            raise RequestError('head="own" was given, but the checkpoint has no classifier; use head="fit".')
        return _fit(data, "the checkpoint has no classifier: a head was fitted on its read-out features")
    if label_map is not None:
        classes = _one_each(data, mapped(data, model, read_label_map(label_map)), model)
        return LabelMatch("map", classes, f"the label map names the model's class of each of the {len(data)} labels")
    for rule in (_in_place, _by_name, _by_order):
        if found := rule(data, model):
            return found
    absent = [name for name, found in zip(data, places(data, model), strict=True) if not found]
    others = (
        f"the data's {len(data)} classes ({data[0]!r}, ..) are not the model's {len(model)} ({model[0]!r}, ..): "
        f"{len(absent)} of the names, such as {absent[0]!r}, are not among them"
    )
    if head == "own" or len(data) == len(model):
        raise RequestError(f"{others}. {WAYS_OUT}")
    return _fit(data, f"{others}; a head was fitted on the read-out features")


def _fit(data: Sequence[str], note: str) -> LabelMatch:
    return LabelMatch("fit", tuple(range(len(data))), note)


def _one_each(data: Sequence[str], classes: tuple[int, ...], model: Sequence[str]) -> tuple[int, ...]:
    """`classes`, if no two labels have the same."""
    first: dict[int, str] = {}
    for label, c in zip(data, classes, strict=True):
        if c in first:
            raise RequestError(
                f"labels {first[c]!r} and {label!r} are both matched to the model's class {c} ({model[c]!r}); each label "
                f"needs a class of its own. {WAYS_OUT}"
            )
        first[c] = label
    return classes


def _in_place(data: Sequence[str], model: Sequence[str]) -> LabelMatch | None:
    """The same list; or a long one in which hardly a name differs (hub data call the second crane ``crane2``)."""
    if len(data) != len(model):
        return None
    if list(map(normalise, data)) == list(map(normalise, model)):
        return LabelMatch("name", tuple(range(len(data))), f"all {len(data)} class names are the model's, in its order")
    differ = [pair for pair in zip(data, model, strict=True) if not same(*pair)]
    if len(data) < MANY or len(differ) > (1 - NEARLY) * len(data):
        return None
    note = f"the class names are the model's, in its order, but for {len(differ)} of {len(data)}"
    first = f" ({differ[0][0]!r} against {differ[0][1]!r})" if differ else ""
    return LabelMatch("name", tuple(range(len(data))), note + first)


def _by_name(data: Sequence[str], model: Sequence[str]) -> LabelMatch | None:
    found = places(data, model)
    if not all(found):
        return None
    for label, several in zip(data, found, strict=True):
        if len(several) > 1:
            named = ", ".join(map(str, sorted(several)))
            raise RequestError(f"{label!r} is the name of several of the model's classes: {named}. {WAYS_OUT}")
    classes = _one_each(data, tuple(one.pop() for one in found), model)
    return LabelMatch("name", classes, f"all {len(data)} class names were found among the model's {len(model)}")


def _by_order(data: Sequence[str], model: Sequence[str]) -> LabelMatch | None:
    """Where the names on one side say nothing."""
    numbers = [n for n in map(number, data) if n is not None]
    silent = len(numbers) == len(data)
    if len(data) == len(model):
        unknown = are_wnids(data) and any(in_words(name) == name for name in data)
        if not (silent or unknown or all(number(name) is not None for name in model)):
            return None
        of_rank = sorted(range(len(model)), key=_rank(model))
        classes = [0] * len(data)
        for c, label in zip(of_rank, sorted(range(len(data)), key=_rank(data)), strict=True):
            classes[label] = c
        return LabelMatch(
            "count",
            tuple(classes),
            f"the class names do not say which is which (data: {data[0]!r}, ..; model: {model[0]!r}, ..) but there are "
            f"{len(data)} of each: taken in order",
        )
    gaps = silent and sorted(numbers) != list(range(len(data)))
    if (
        gaps
        and min(numbers) == 0
        and max(numbers) < len(model) <= 2 * len(set(numbers))
        and len(data) == len(set(numbers))
    ):
        return LabelMatch(
            "count",
            tuple(numbers),
            f"the data's {len(data)} numbers were taken as indices of the model's {len(model)} classes",
        )
    return None


def _rank(names: Sequence[str]) -> Callable[[int], Any]:
    """A key that orders the places of `names`: by number or WordNet id where all are such, else as they stand."""
    numbers = [number(name) for name in names]
    if None not in numbers:
        return lambda i: (numbers[i], names[i])
    return (lambda i: names[i]) if are_wnids(names) else (lambda i: i)
