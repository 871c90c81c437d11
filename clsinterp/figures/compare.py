"""Runs side by side: their gaps, sorted."""

from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.style import BLUE, GREY


def compare_figure(table: pa.Table) -> go.Figure:
    """A bar per run from the rows of a comparison, the widest gap on top, with its 95% interval.

    Args:
        table: columns ``run``, ``model``, ``data``, ``n``, ``gap`` with ``gap_low`` and ``gap_high``, ``same_data``,
            ``decodable_from``, ``used_from``, sorted.
    """
    rows = [row for row in table.to_pylist() if row["gap"] is not None]
    fig = go.Figure()
    same = all(row["same_data"] for row in table.to_pylist())
    fig.add_bar(
        x=[row["gap"] for row in rows],
        y=[_name(row) for row in rows],
        orientation="h",
        marker_color=[BLUE if row["same_data"] else GREY for row in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row["gap_high"] - row["gap"] for row in rows],
            "arrayminus": [row["gap"] - row["gap_low"] for row in rows],
        },
        text=[f"read from {row['decodable_from']}, used from {row['used_from']}" for row in rows],
        textposition="inside",
        insidetextanchor="start",
        hovertemplate="%{y}: gap %{x:.3f}<extra></extra>",
        showlegend=False,
    )
    fig.update_xaxes(title_text="gap: availability minus use, each from floor to top, mean over layers")
    fig.update_yaxes(autorange="reversed", automargin=True)
    widest = f"widest in {rows[0]['model']} ({rows[0]['gap']:.2f})" if rows else "no run has one"
    note = f"{len(rows)} of {len(table)} runs; bars: 95% intervals over images"
    if not same:
        note += "; grey: other test images than the first run's, not comparable"
    return finish(fig, f"Gap between availability and use: {widest}", 40 + 44 * len(rows), note=note)


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} <sup>{row['run']}, n = {row['n']}</sup>"
