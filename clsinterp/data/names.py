"""Names of classes: what counts as the same name, what says nothing, and where a name stands among a model's."""

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from clsinterp.data.imagenet import in_words, synsets
from clsinterp.errors import RequestError


def normalise(name: str) -> str:
    """`name` without differences of case, of separators, and of zeros before a number.

    Example:
        >>> normalise("Great_White-shark"), normalise("007")
        ('great white shark', '7')
    """
    text = re.sub(r"[\s_\-/]+", " ", name).strip().casefold()
    return str(int(text)) if text.isdecimal() else text


def synonyms(name: str) -> list[str]:
    """The names in a comma-separated list of them, as ImageNet's are, normalised."""
    return [part for part in map(normalise, name.split(",")) if part]


def number(name: str) -> int | None:
    """The number that is all a name says: of ``7``, and of the generic ``LABEL_7`` and ``class 7``; else None."""
    found = re.fullmatch(r"(?:label ?|class ?)?(\d+)", normalise(name))
    return int(found[1]) if found else None


def in_order(names: Iterable[str]) -> list[str]:
    """Names by alphabet, then numbers by value.

    Example:
        >>> in_order(["10", "9", "b", "a"])
        ['a', 'b', '9', '10']
    """

    def key(name: str) -> tuple[int, str]:
        value = number(name)
        return (-1 if value is None else value, name)

    return sorted(names, key=key)


def same(one: str, other: str) -> bool:
    """Whether two names have a synonym in common."""
    return not set(synonyms(in_words(one))).isdisjoint(synonyms(in_words(other)))


def is_imagenet(model: Sequence[str]) -> bool:
    """Whether a classifier's classes are those of ImageNet-1k: 1,000, and at least half of the names agree, each in its place.

    Half is far more than another list could share by chance, and room for lists with names of their own for some classes.
    """
    known = synsets()
    return len(model) == len(known) and 2 * sum(map(same, model, known)) >= len(known)


# Ways to read a name, the strictest first: the whole of it, its first synonym, any synonym.
READINGS: tuple[Callable[[str], list[str]], ...] = (
    lambda name: [normalise(name.replace(",", " "))],
    lambda name: synonyms(name)[:1],
    synonyms,
)


def places(names: Sequence[str], model: Sequence[str]) -> list[set[int]]:
    """For each name, the classes of a model that are called so: none, one, or several that share the name.

    WordNet ids are looked up by their place where the classes are ImageNet's, and by their names elsewhere.

    Example:
        >>> places(["crane", "goldfish", "cat"], ["crane", "goldfish, Carassius auratus", "crane"])
        [{0, 2}, {1}, set()]
    """
    ids = {wnid: i for i, wnid in enumerate(synsets())} if is_imagenet(model) else {}
    written, spelt = _index(model), _index([in_words(name) for name in model])

    def of(name: str) -> set[int]:
        return {ids[name]} if name in ids else _called(name, written) or _called(in_words(name), spelt)

    return [of(name) for name in names]


def class_index(asked: int | str, model: Sequence[str]) -> int:
    """The class that a number or a name means: a whole name, or any synonym of one class only.

    Raises:
        RequestError: no class, or several, with the names that are nearest.

    Example:
        >>> class_index("Ankle boot", ["sandal", "ankle boot, bootee"])
        1
    """
    if isinstance(asked, str):
        found = {model.index(asked)} if asked in model else places([asked], model)[0]
        if len(found) == 1:
            return found.pop()
        if found:
            several = ", ".join(map(str, sorted(found)))
            raise RequestError(f"{asked!r} is the name of the classes {several}; give the number.")
        if not asked.isdecimal():
            near = difflib.get_close_matches(asked, model, n=3, cutoff=0.3) or list(model[:5])
            raise RequestError(f"there is no class {asked!r} among the model's {len(model)}; near: {', '.join(near)}.")
    if 0 <= int(asked) < len(model):
        return int(asked)
    raise RequestError(f"class {asked} was given; this model has classes 0 to {len(model) - 1}.")


def _index(model: Sequence[str]) -> list[dict[str, set[int]]]:
    """For each reading: what is read -> the classes of which it is read."""
    tables: list[dict[str, set[int]]] = [defaultdict(set) for _ in READINGS]
    for i, name in enumerate(model):
        for table, read in zip(tables, READINGS, strict=True):
            for key in read(name):
                table[key].add(i)
    return tables


def _called(name: str, tables: list[dict[str, set[int]]]) -> set[int]:
    for table, read in zip(tables, READINGS, strict=True):
        if found := {i for key in read(name) for i in table.get(key, ())}:
            return found
    return set()
