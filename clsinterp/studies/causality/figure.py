"""The figures of the causality study: what tokens do beside what they tell, and what patches with objects tell."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.studies.causality.setup import GROUPS
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

WIDTHS = (2, 5, 5, 2, 1.5)  # of the lines: what covers another one is thinner
CHANCE = 0.2  # of five counts
TITLES = {
    "turns to the donor's count": "acts: output turns to the donor's count",
    "logit difference": "acts: logit difference (0 host, 1 donor)",
    "probe reads the count": "tells: a probe reads the count",
}


def counting_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Three panels, a curve for each group of tokens.

    Args:
        table: rows with ``curve, group, layer, direction`` and a point; curves as in `TITLES`.
        shown: for names.
    """
    found = {
        name: pick(table, curve=name, direction=None if name == "probe reads the count" else "both") for name in TITLES
    }
    fig = panel_grid([titled(TITLES[name], rows, "pairs") for name, rows in found.items()], horizontal_spacing=0.07)
    groups = [group for group in GROUPS if any(r["group"] == group for r in found["probe reads the count"])]
    for col, (name, rows) in enumerate(found.items(), start=1):
        for n, group in enumerate(groups):
            points = [r for r in rows if r["group"] == group]
            curve(fig, points, "CLS token" if group == "CLS" else group, n, width=WIDTHS[n], row=1, col=col)
        what = "layer" if name == "probe reads the count" else "layer of the swap"
        layer_axes(fig, len(shown.layers), what, row=1, col=col)
    share_axis(fig, "share of outputs", row=1, col=1)
    share_axis(fig, "accuracy of the probe", row=1, col=3)
    level(fig, CHANCE, shown.layers, "chance of the probe", row=1, col=3)
    acts = [
        r["layer"] for r in found["turns to the donor's count"] if r["group"] == "removed object" and r["value"] >= 0.5
    ]
    told = {r["layer"]: r["value"] for r in found["probe reads the count"] if r["group"] == "removed object"}
    said = f"act at blocks {acts[0]} to {acts[-1]} and tell at {told[acts[0]]:.2f} there" if acts else "act at no block"
    title = f"{shown.name}: the removed object's patches {said}, {told[max(told)]:.2f} after the last block"
    return finish(fig, title, panel=360, shared=((1,),))


def context_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Two panels: identifiability of the count at patches with objects and without, and its rate.

    Args:
        table: rows of `clsinterp.studies.causality.context.context`.
        shown: for names.
    """
    curves = {"identifiability": "1 - rank of the count / C", "identifiability rate": "patches with the count on top"}
    fig = panel_grid(
        [titled(t, pick(table, curve=name)) for name, t in curves.items()], columns=2, horizontal_spacing=0.08
    )
    for col, name in enumerate(curves, start=1):
        for n, group in enumerate(("objects", "background"), start=1):
            curve(fig, pick(table, curve=name, group=group), f"patches with {group}", n, row=1, col=col)
        layer_axes(fig, len(shown.layers), "block", row=1, col=col)
        share_axis(fig, "", row=1, col=col)
    apart = pick(table, curve="objects above background")
    clear = [r["layer"] for r in apart if r["p"] < 0.025]
    less = [r["layer"] for r in apart if r["p"] > 0.975]
    title = (f"{shown.name}: patches with objects tell the count more than the background in {len(clear)} blocks, less in "
             f"{len(less)}, of {len(apart)}")  # fmt: skip
    return finish(fig, title, panel=360, shared=((1,),))
