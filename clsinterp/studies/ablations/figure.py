"""The figure of the ablation study: every way to take a token away, by layer."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import finish
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import one, pick

NAMES = {"cls": "CLS token", "registers": "register tokens"}


def ablations_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """A panel for each group of tokens, a curve for each way.

    Args:
        table: rows with ``group, curve, layer`` and a point, and ``intact`` without group and layer.
        shown: for names and chance.
    """
    points = [row for row in table.to_pylist() if row["group"] is not None]
    groups, names = (list(dict.fromkeys(row[column] for row in points)) for column in ("group", "curve"))
    fig = panel_grid([NAMES[group] for group in groups], shared_yaxes=True, horizontal_spacing=0.04)
    for col, group in enumerate(groups, start=1):
        for n, name in enumerate(names):
            curve(fig, pick(table, group=group, curve=name), name.replace("_", " "), n, row=1, col=col)
        level(fig, one(table, curve="intact")["value"], shown.layers, "intact", dash="dash", row=1, col=col)
        level(fig, 1 / shown.n_answers, shown.layers, "chance", row=1, col=col)
        layer_axes(fig, len(shown.layers), "layer of the ablation", row=1, col=col)
    share_axis(fig, "accuracy of the output", row=1, col=1)
    return finish(fig, f"Six ways to take a token away: {shown.name}", 620)
