"""Figures of what a run measured beside the note, each drawn where its curve is there."""

from collections.abc import Callable

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.erased import erased_figure
from clsinterp.figures.facts import Facts
from clsinterp.figures.knock import knock_figure

WINDOW = 3  # blocks of ``knock_at`` in a run, which are those of `clsinterp.sweeps.knock`


def _rereading(curves: pa.Table, facts: Facts) -> go.Figure:
    return knock_figure(curves, facts.model, facts.n_layers, WINDOW)


ALSO: dict[str, Callable[[pa.Table, Facts], go.Figure]] = {
    "erased": erased_figure,
    "knock_until": _rereading,
}  # curve -> its figure


def also_figures(curves: pa.Table, facts: Facts) -> list[go.Figure]:
    """The figures of the measurements that are in `curves`."""
    there = set(curves["curve"].to_pylist())
    return [draw(curves, facts) for curve, draw in ALSO.items() if curve in there]
