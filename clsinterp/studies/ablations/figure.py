"""The figure of the ablations study: every way to take a token away, a panel for each group of tokens."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import one, pick

NAMES = {"cls": "CLS token", "registers": "register tokens"}
WIDTHS = (6, 4, 2, 2, 2, 2)  # of the lines: the three kinds of swap may coincide


def ablations_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """A curve for every kind of ablation.

    Args:
        table: rows with ``group, curve, layer`` and a point; ``intact`` has no group.
        shown: for names and the number of classes.
    """
    layers, intact = shown.layers, one(table, curve="intact")["value"]
    rows = [row for row in table.to_pylist() if row["layer"] is not None]
    groups = [group for group in NAMES if any(row["group"] == group for row in rows)]
    kinds = list(dict.fromkeys(row["curve"] for row in rows))
    panels = {group: [row for row in rows if row["group"] == group] for group in groups}
    fig = panel_grid(
        [titled(NAMES[g], panel) for g, panel in panels.items()], shared_yaxes=True, horizontal_spacing=0.04
    )
    for col, group in enumerate(groups, start=1):
        for n, name in enumerate(kinds):
            points = pick(table, group=group, curve=name)
            curve(fig, points, name.replace("_", " "), n, width=WIDTHS[n], row=1, col=col)
        level(fig, intact, layers, "intact", dash="dash", row=1, col=col)
        level(fig, 1 / shown.n_answers, layers, "chance", row=1, col=col)
        layer_axes(fig, len(layers), "layer of the ablation", row=1, col=col)
    share_axis(fig, "accuracy of the output", row=1, col=1)
    lost = mean_loss(table, groups[0])
    most, least = (end(lost, key=lambda name: lost[name]) for end in (max, min))
    title = (f"{shown.name}: of six ways to take the {NAMES[groups[0]]} away, {most.replace('_', ' ')} costs most "
             f"({lost[most]:.2f} of accuracy over layers), {least.replace('_', ' ')} least ({lost[least]:.2f})")  # fmt: skip
    return finish(fig, title, 380, shared="all")


def mean_loss(table: pa.Table, group: str) -> dict[str, float]:
    """Kind of ablation -> accuracy lost by it, mean over layers."""
    intact = one(table, curve="intact")["value"]
    lost: dict[str, list[float]] = {}
    for row in pick(table, group=group):
        lost.setdefault(row["curve"], []).append(intact - row["value"])
    return {name: sum(values) / len(values) for name, values in lost.items()}
