"""Numbers of a tidy table as words of a sentence."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from clsinterp.studies.tidy import pick

Row = dict[str, Any]


def by_layer(table: pa.Table, **where: Any) -> dict[int, Row]:
    """Layer -> the row of a curve there; rows without a layer are left out."""
    return {row["layer"]: row for row in pick(table, **where) if row["layer"] is not None}


def name_of(table: pa.Table) -> str:
    """The model a table is about, as code."""
    return f"`{table['model'][0].as_py()}`"


def two(value: float) -> str:
    """A share with two digits; a zero has no sign.

    Example:
        >>> two(0.8549), two(-0.001)
        ('0.85', '0.00')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def interval(row: Row) -> str:
    """A value with its interval.

    Example:
        >>> interval({"value": 0.125, "ci_low": 0.075, "ci_high": 0.176})
        '0.12 [0.07, 0.18]'
    """
    return f"{two(row['value'])} [{two(row['ci_low'])}, {two(row['ci_high'])}]"


def span(rows: Iterable[Row]) -> str:
    """The least and the largest value of some rows.

    Example:
        >>> span([{"value": 0.7}, {"value": 0.9}, {"value": 0.8}])
        '0.70 to 0.90'
    """
    ends = [two(end([row["value"] for row in rows])) for rows in [list(rows)] for end in (min, max)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def listed(items: Sequence[Any]) -> str:
    """Items in a row, the last after an "and".

    Example:
        >>> listed([3, 8, 9]), listed(["zeros"])
        ('3, 8 and 9', 'zeros')
    """
    words = [str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def runs(layers: Sequence[int], what: str = "layer") -> str:
    """Layers as a list in which three and more in a row are one item.

    Example:
        >>> runs([2, 4, 5, 6, 7, 11]), runs([3]), runs([])
        ('layers 2, 4 to 7 and 11', 'layer 3', 'no layer')
    """
    groups: list[list[int]] = []
    for layer in layers:
        if groups and layer == groups[-1][-1] + 1:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    items = [item for g in groups for item in ([f"{g[0]} to {g[-1]}"] if len(g) > 2 else g)]
    return f"no {what}" if not items else f"{what}{'s' if len(layers) > 1 else ''} {listed(items)}"


def above(row: Row, other: Row) -> bool:
    """The first is larger, and the two intervals do not meet."""
    return bool(row["ci_low"] > other["ci_high"])


def first(rows: dict[int, Row], passes: Callable[[int], bool]) -> int | None:
    """The first layer that passes."""
    return next((layer for layer in rows if passes(layer)), None)
