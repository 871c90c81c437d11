"""Tidy tables: one row per point, with its 95% interval."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clsinterp.probing.metrics import mean_interval, wilson


class Rows:
    """Collects points and gives them as a table.

    Args:
        **always: columns that are the same in every row.
    """

    def __init__(self, **always: Any) -> None:
        self.always = always
        self.rows: list[dict[str, Any]] = []

    def share(self, hits: Bool[Tensor, "n ..."], **where: Any) -> float:
        """Add the share of true entries of `hits`, (image,) or (image, part), with its Wilson interval; returns it.

        Parts of an image (tokens, directions of a swap) are no sample of their own: they are averaged within the image,
        and the interval is that of images, at the effective size `effective`. ``n`` counts images.
        """
        each = hits.double().flatten(1).mean(1) if hits.ndim > 1 else hits.double()
        n, value = len(each), float(each.mean())
        size = effective(each)
        low, high = wilson(value * size, size)
        return self.add(value, low, high, n, **where)

    def mean(self, values: Tensor, **where: Any) -> float:
        """Add the mean of `values`, with its normal interval; returns it."""
        values = values.double().flatten()
        return self.add(float(values.mean()), *mean_interval(values), len(values), **where)

    def add(
        self, value: float, low: float | None = None, high: float | None = None, n: int | None = None, **where: Any
    ) -> float:
        """Add a point; returns its value."""
        self.rows.append({**self.always, **where, "value": value, "ci_low": low, "ci_high": high, "n": n})
        return value

    def table(self) -> pa.Table:
        """All points; columns in order of first use, null where a row has no such column."""
        names = list(dict.fromkeys(name for row in self.rows for name in row if name not in POINT)) + list(POINT)
        return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in self.rows])


def effective(shares: Float[Tensor, " n"]) -> float:
    """How many independent trials would have the spread that `shares`, one per image, have: p (1 - p) / s^2 times n.

    The number of images where each is all or nothing, and of all parts where parts are independent; s^2 is the variance
    over images (the usual sample size of a Wilson interval from clusters, Korn and Graubard 1998).
    """
    n = len(shares)
    if n == 0 or (shares.round() == shares).all():
        return n
    p, spread = float(shares.mean()), float(shares.var(unbiased=False))
    return n * p * (1 - p) / spread if spread > 0 else n


POINT = ("value", "ci_low", "ci_high", "n")


def pick(table: pa.Table, **where: Any) -> list[dict[str, Any]]:
    """The rows in which every named column has that value, in order."""
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in where.items())]


def one(table: pa.Table, **where: Any) -> dict[str, Any]:
    """The only row in which every named column has that value.

    Raises:
        LookupError: there is none, or there are several.
    """
    found = pick(table, **where)
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows have {where}; one is expected.")
    return found[0]


def wide(table: pa.Table, index: str, column: str, keep: Sequence[Any] | None = None) -> pa.Table:
    """One row per value of `index`, one column per value of `column`, from the column ``value``.

    Args:
        table: a tidy table.
        index: column that names the rows.
        column: column that names the columns.
        keep: which columns, in order; default all in order of appearance.
    """
    rows = [row for row in table.to_pylist() if row[index] is not None]
    names = list(keep) if keep is not None else list(dict.fromkeys(row[column] for row in rows))
    cell = {(row[index], row[column]): row["value"] for row in rows}
    places = list(dict.fromkeys(row[index] for row in rows))
    lines = [{index: p, **{str(n): cell.get((p, n)) for n in names}} for p in places]
    return pa.Table.from_pylist(lines)


def joined(parts: Iterable[Tensor], dim: int = 0) -> Tensor:
    """`parts`, one per batch, as one tensor on the CPU."""
    return torch.cat([part.cpu() for part in parts], dim=dim)
