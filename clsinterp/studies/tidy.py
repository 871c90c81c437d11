"""Tidy tables: one row per point, with its 95% interval."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
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

    def share(self, hits: Tensor, **where: Any) -> float:
        """Add the share of true entries of `hits`, with its Wilson interval; returns it."""
        n, k = hits.numel(), int(hits.sum())
        low, high = wilson(k, n)
        return self.add(k / n if n else float("nan"), low, high, n, **where)

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


POINT = ("value", "ci_low", "ci_high", "n")


def pick(table: pa.Table, **where: Any) -> list[dict[str, Any]]:
    """The rows in which every named column has that value, in order."""
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in where.items())]


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
