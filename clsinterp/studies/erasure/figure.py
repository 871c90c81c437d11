"""The figure of the erasure study: what the output loses, what is left to read, and where the label comes back."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, heat, key, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import one, pick

OUTPUT = {  # curve -> name in the legend
    "erased": "label erased", "erased_at_random": "as many random directions erased",
    "replaced_by_mean": "token replaced by the mean", "shuffle": "token swapped",
}  # fmt: skip
CLS_ONLY = {
    "erased_cls_only": "label erased, CLS read-out alone",
    "shuffle_cls_only": "token swapped, CLS read-out alone",
}
READ = {
    "probe": "probe, intact", "probe_after_erasure": "fresh probe", "intact_probe_after_erasure": "intact tokens' probe",
    "leftover": "probe fitted on other erased test tokens",
}  # fmt: skip
LATER = (1, 2, 4)  # blocks since the erasure that get a line


def erasure_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Four panels.

    Args:
        table: rows with ``curve, layer, probed_layer`` and a point.
        shown: for names and layers.
    """
    layers = shown.layers
    titles = ["output, CLS token changed at layer l", "label read at layer l, right after erasure",
              "fresh probes at later layers", "the label's way back, by blocks since erasure"]  # fmt: skip
    erased = pick(table, curve="erased")
    fig = panel_grid([titled(title, erased) for title in titles], columns=2, horizontal_spacing=0.1)
    for n, (name, label) in enumerate(OUTPUT.items()):
        curve(fig, pick(table, curve=name), label, n, row=1, col=1)
    for n, (name, label) in enumerate(CLS_ONLY.items()):
        curve(fig, pick(table, curve=name), label, 3 * n, dash="dot", row=1, col=1)
    level(fig, one(table, curve="intact")["value"], layers, "output, intact", dash="dash", row=1, col=1)
    after = pick(table, curve="probe_after_erasure")
    for n, (name, label) in enumerate(READ.items()):
        points = [r for r in pick(table, curve=name) if r["probed_layer"] in (None, r["layer"])]
        curve(fig, points, label, n, width=(2, 6, 4, 1.5)[n], row=1, col=2)  # three lie on the floor
    cell = {(r["layer"], r["probed_layer"]): r["value"] for r in after}
    z = [[r["value"] for r in pick(table, curve="probe")], *[[cell.get((i, j)) for j in layers] for i in layers]]
    heat(fig, z, layers, ["none", *map(str, layers)], bar=None, row=2, col=1)
    fig.update_xaxes(title_text="probed layer", row=2, col=1)
    fig.update_yaxes(title_text="layer of the erasure", row=2, col=1)
    for n, later in enumerate(LATER, start=1):
        for name, dash in (("probe_after_erasure", "solid"), ("intact_probe_after_erasure", "dot")):
            line = [r for r in pick(table, curve=name) if r["probed_layer"] == r["layer"] + later]
            curve(fig, line, f"{later} block{'s' * (later > 1)} later", n, dash=dash, row=2, col=2)
    key(fig, "fresh probe (solid)", row=2, col=2)
    key(fig, "intact tokens' probe (dotted)", "dot", row=2, col=2)
    for row, col in ((1, 1), (1, 2), (2, 2)):
        level(fig, one(table, curve="majority")["value"], layers, "most frequent label", row=row, col=col)
        layer_axes(fig, len(layers), "layer l of the erasure", row=row, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=row, col=col)
    middle = layers[len(layers) // 2]
    value = {name: one(table, curve=name, layer=middle)["value"] for name in ("erased", "shuffle")}
    back = cell.get((middle, middle + 1))
    again = "" if back is None else f"; one block later a fresh probe reads {back:.2f}"
    title = (f"{shown.name}: with the label erased at layer {middle} the output is right in {value['erased']:.2f}, "
             f"after a swap in {value['shuffle']:.2f}{again}")  # fmt: skip
    return finish(fig, title)
