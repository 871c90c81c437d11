"""The grammar of the per-image columns, one for who writes, reads and counts them: ``rank_shuffle_03``.

A name is a kind (what is recorded of an image), a curve (of what), and as many layers as the curve has: none (intact), one
(where tokens were swapped, or read), or two (swapped, then read, ``rank_restoration_03_07``). Layer -1 is before block 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations, combinations_with_replacement
from typing import NamedTuple

# What a run measures only if it is asked to (``--also``): one layer each, and each also as ``.._cls_only``.
_BESIDE = (
    "erased",
    "knock_until",
    "knock_from",
    "knock_at",
    "knock_patches_until",
    "knock_until_registers",
    "knock_from_registers",
    "knock_at_registers",
)
BESIDE = tuple(f"{curve}{which}" for curve in _BESIDE for which in ("", "_cls_only"))
# What probes read of tokens that were edited so: at the layer itself, or where they were edited and at a later layer.
PROBED_BESIDE = {"probe_after_erasure": 1, "intact_probe_after_erasure": 2}
LATER = ("intact_probe_after_erasure",)  # curves of two layers that are never the same
# kind -> curve -> how many layers name one of its columns. A new kind or curve is a new entry here.
GRAMMAR: dict[str, dict[str, int]] = {
    "rank": {
        "intact": 0,
        "shuffle": 1,
        "donor": 1,
        "lens": 1,
        "lens_distill": 1,
        "probe": 1,
        "restoration": 2,
        "intact_cls_only": 0,
        "shuffle_cls_only": 1,
        **dict.fromkeys(BESIDE, 1),
        **PROBED_BESIDE,
    },
    "answer": {"intact": 0, "shuffle": 1, "intact_cls_only": 0, "shuffle_cls_only": 1, **dict.fromkeys(BESIDE, 1)},
}
NAME = re.compile(r"(?P<kind>[a-z]+)_(?P<curve>[a-z_]+?)(?P<layers>(?:_(?:-1|\d\d|[1-9]\d{2,}))*)")


class Column(NamedTuple):
    """What a column's name says.

    Attributes:
        kind: what is recorded: ``rank``, the place of the true label among all classes, or ``answer``, the first class.
        curve: of what.
        layers: in the order in which they come in a forward pass.
    """

    kind: str
    curve: str
    layers: tuple[int, ...]


def column(curve: str, *layers: int, kind: str = "rank") -> str:
    """The name of a column.

    Example:
        >>> column("intact"), column("shuffle", -1), column("restoration", 3, 7)
        ('rank_intact', 'rank_shuffle_-1', 'rank_restoration_03_07')
    """
    return "_".join([kind, curve, *(f"{layer:02d}" for layer in layers)])


def parse(name: str) -> Column | None:
    """What the name of a column says; None if it is no such column, as ``index`` or ``label``.

    Example:
        >>> parse("rank_shuffle_cls_only_03")
        Column(kind='rank', curve='shuffle_cls_only', layers=(3,))
    """
    found = NAME.fullmatch(name)
    if found is None:
        return None
    layers = tuple(int(layer) for layer in found["layers"].split("_")[1:])
    known = GRAMMAR.get(found["kind"], {}).get(found["curve"]) == len(layers)
    return Column(found["kind"], found["curve"], layers) if known else None


def columns(layers: Sequence[int], curves: Iterable[str], kind: str = "rank") -> list[str]:
    """The names of all columns of `curves` when tokens are swapped and read at `layers`; what a run holds is their number.

    Example:
        >>> columns([0, 11], ["intact", "restoration"])
        ['rank_intact', 'rank_restoration_00_00', 'rank_restoration_00_11', 'rank_restoration_11_11']
    """
    return [
        column(curve, *at, kind=kind)
        for curve in curves
        for at in (combinations if curve in LATER else combinations_with_replacement)(
            sorted(layers), GRAMMAR[kind][curve]
        )
    ]
