"""The figure of the erasure study: what the output loses, what is left to read, and where the label comes back."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, heat, layer_axes, level, panel_grid, share_axis
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
    fig = panel_grid(titles, columns=2, horizontal_spacing=0.1)
    for n, (name, label) in enumerate(OUTPUT.items()):
        curve(fig, pick(table, curve=name), label, n, row=1, col=1)
    for n, (name, label) in enumerate(CLS_ONLY.items()):
        curve(fig, pick(table, curve=name), label, 3 * n, dash="dot", row=1, col=1)
    level(fig, one(table, curve="intact")["value"], layers, "output, intact", dash="dash", row=1, col=1)
    after = pick(table, curve="probe_after_erasure")
    for n, (name, label) in enumerate(READ.items()):
        points = [r for r in pick(table, curve=name) if r["probed_layer"] in (None, r["layer"])]
        curve(fig, points, label, n, row=1, col=2)
    cell = {(r["layer"], r["probed_layer"]): r["value"] for r in after}
    z = [[r["value"] for r in pick(table, curve="probe")], *[[cell.get((i, j)) for j in layers] for i in layers]]
    heat(fig, z, layers, ["none", *map(str, layers)], bar=None, row=2, col=1)
    fig.update_xaxes(title_text="probed layer", row=2, col=1)
    fig.update_yaxes(title_text="layer of the erasure", row=2, col=1)
    for n, later in enumerate(LATER, start=1):
        for name, dash in (("probe_after_erasure", "solid"), ("intact_probe_after_erasure", "dot")):
            line = [r for r in pick(table, curve=name) if r["probed_layer"] == r["layer"] + later]
            label = f"{later} block{'s' * (later > 1)} later, {READ[name]}"
            curve(fig, line, label, n, band=False, dash=dash, row=2, col=2)
    for row, col in ((1, 1), (1, 2), (2, 2)):
        level(fig, one(table, curve="majority")["value"], layers, "most frequent label", row=row, col=col)
        layer_axes(fig, len(layers), "layer l of the erasure", row=row, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=row, col=col)
    return finish_panels(fig, f"The label taken out of the CLS token, linearly: {shown.name}", entries=(8, 7))
