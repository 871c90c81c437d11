"""The figure of the restoration study: two heatmaps, and what follows a swap block by block."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, heat, key, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import GREY
from clsinterp.studies.restoration.floor import FLOOR
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

FEW = 3  # layers of the short run of swaps
SETS = ("at l alone", f"at the {FEW} layers up to l", "at every layer up to l")
LATER = (0, 1, 2, 4)  # blocks since the swap that get a line


def restoration_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Four panels.

    Args:
        table: rows with ``curve, layer, probed_layer`` and a point; curves ``no shuffle``, ``same probe``, ``refitted probe``,
            ``output``, the floor's and those of `SETS`.
        shown: for names and layers.
    """
    layers = shown.layers
    titles = ["probes fitted on intact tokens", "probes fitted again after the swap (the note's)",
              "probes by blocks since the swap", "output, swapped at several layers"]  # fmt: skip
    same_probe = pick(table, curve="same probe")
    fig = panel_grid([titled(title, same_probe) for title in titles], columns=2, horizontal_spacing=0.1)
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
            curve(fig, line, name, n, dash=dash, row=2, col=1)
    key(fig, "probe fitted on intact tokens (solid)", row=2, col=1)
    key(fig, "fitted again (dotted)", "dot", row=2, col=1)
    for n, name in enumerate(SETS):
        curve(fig, pick(table, curve=name), f"swapped {name}", n + 4, row=2, col=2)
    (intact,) = [r["value"] for r in pick(table, curve="output")]
    level(fig, intact, layers, "output, intact", dash="dash", row=2, col=2)
    for col in (1, 2):
        curve(fig, pick(table, curve=FLOOR), FLOOR, GREY, dash="dot", row=2, col=col)
        layer_axes(fig, len(layers), "layer l of the swap", row=2, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=2, col=col)
    fig.update_yaxes(title_text="layer of the swap", row=1, col=1)
    middle, last = layers[len(layers) // 2], max(layers)
    same, again = (
        next(r["value"] for r in pick(table, curve=kind, layer=middle) if r["probed_layer"] == last)
        for kind in ("same probe", "refitted probe")
    )
    title = (f"{shown.name}: after a swap at layer {middle} the last layer's probe reads {same:.2f} of labels, one fitted again "
             f"{again:.2f}, of intact tokens {none[-1]:.2f}")  # fmt: skip
    return finish(fig, title)
