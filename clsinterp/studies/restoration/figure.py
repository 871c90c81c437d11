"""The figure of the restoration study: two heatmaps, and what follows a shuffle block by block."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, heat, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import GREY
from clsinterp.studies.restoration.floor import FLOOR
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

FEW = 3  # layers of the short run of shuffles
SETS = ("at l alone", f"at the {FEW} layers up to l", "at every layer up to l")
LATER = (0, 1, 2, 4)  # blocks since the shuffle that get a line


def restoration_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Four panels.

    Args:
        table: rows with ``curve, layer, probed_layer`` and a point; curves ``no shuffle``, ``same probe``, ``refitted probe``,
            ``output``, the floor's and those of `SETS`.
        shown: for names and layers.
    """
    layers = shown.layers
    titles = ["probes fitted on intact tokens", "probes fitted again after the shuffle (the note's)",
              "accuracy by blocks since then", "output, shuffled at several layers"]  # fmt: skip
    fig = panel_grid(titles, columns=2, horizontal_spacing=0.1)
    none = [r["value"] for r in pick(table, curve="no shuffle")]
    for col, kind in enumerate(("same probe", "refitted probe"), start=1):
        points = pick(table, curve=kind)
        cell = {(r["layer"], r["probed_layer"]): r["value"] for r in points}
        z = [none, *[[cell.get((i, j)) for j in layers] for i in layers]]
        heat(fig, z, layers, ["none", *map(str, layers)], bar=1.02 if col == 2 else None, row=1, col=col)
        fig.update_xaxes(title_text="probed layer", row=1, col=col)
        for n, later in enumerate(LATER):
            name = "at once" if not later else f"{later} block{'s' * (later > 1)} later"
            line = [r for r in points if r["probed_layer"] == r["layer"] + later]
            dash = "solid" if kind == "same probe" else "dot"
            curve(fig, line, f"{name}, {kind}", n, band=False, dash=dash, row=2, col=1)
    for n, name in enumerate(SETS):
        curve(fig, pick(table, curve=name), f"shuffled {name}", n + 4, row=2, col=2)
    (intact,) = [r["value"] for r in pick(table, curve="output")]
    level(fig, intact, layers, "output, intact", dash="dash", row=2, col=2)
    for col in (1, 2):
        curve(fig, pick(table, curve=FLOOR), FLOOR, GREY, dash="dot", row=2, col=col)
        layer_axes(fig, len(layers), "layer l of the shuffle", row=2, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=2, col=col)
    fig.update_yaxes(title_text="layer of the shuffle", row=1, col=1)
    return finish_panels(fig, f"Is the label written into the CLS token again? {shown.name}", entries=(0, 9))
