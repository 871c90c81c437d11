"""The 1,000 classes of ImageNet-1k: their WordNet ids and names, in class order."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

WNID = re.compile(r"n\d{8}")


@cache
def synsets() -> dict[str, str]:
    """WordNet id -> its names, comma-separated, in class order. Source: the head of ``imagenet_wnids.txt``.

    Example:
        >>> list(synsets().items())[0]
        ('n01440764', 'tench, Tinca tinca')
    """
    lines = files("clsinterp").joinpath("data/imagenet_wnids.txt").read_text(encoding="utf-8").splitlines()
    return {wnid: names for wnid, _, names in (line.partition("\t") for line in lines if not line.startswith("#"))}


def are_wnids(names: Sequence[str]) -> bool:
    """Whether all `names` are written as WordNet ids (``n01440764``), of ImageNet-1k or not."""
    return all(WNID.fullmatch(name) for name in names)


def in_words(name: str) -> str:
    """The names behind an id of ImageNet-1k; any other name as it is."""
    return synsets().get(name, name)
