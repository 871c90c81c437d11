"""The figure of ``--also erasure``: the output without the CLS token's label, beside a swap, which puts a wrong one in."""

from itertools import pairwise

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.facts import Facts
from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import Row, curve, layer_axes, level, panel_grid, share_axis, titled

CURVES = {"erased": "the label erased", "shuffle": "the run's replacement"}
METRICS = {"accuracy": "accuracy of the output", "agreement": "same answer as intact"}
READ = "label read from the CLS token"


def erased_figure(curves: pa.Table, facts: Facts) -> go.Figure:
    """Three panels: accuracy and agreement with the intact answers, dotted where the CLS read-out is taken alone; and what probes
    read, at the layer where the label is erased, one layer later, and at the last.

    Args:
        curves: of a run with ``also=("erasure",)``.
        facts: of that run.
    """
    table = curves.to_pylist()
    layers = sorted(r["layer"] for r in table if (r["curve"], r["metric"]) == ("erased", "accuracy"))

    def rows(name: str, metric: str) -> list[Row]:
        found = [r for r in table if (r["curve"], r["metric"]) == (name, metric)]
        return sorted(found, key=lambda r: (r["layer"] or 0, r["probed_layer"] or 0))

    titles = [titled(text, rows("erased", metric)) for metric, text in METRICS.items()]
    read = titled(READ, rows("probe_after_erasure", "accuracy"))
    fig = panel_grid([*titles, read], shared_yaxes=True, horizontal_spacing=0.04)
    for col, metric in enumerate(METRICS, start=1):
        for n, (name, label) in enumerate(CURVES.items()):
            for alone, dash in (("", "solid"), ("_cls_only", "dot")):
                swapped = (f"agreement{alone}", "share") if metric == "agreement" else (f"shuffle{alone}", metric)
                found = rows(*swapped) if name == "shuffle" else rows(name + alone, metric)
                said = f"{label}, CLS read-out alone" if alone else label
                curve(fig, found, said, n, dash=dash, row=1, col=col)
    later = rows("intact_probe_after_erasure", "accuracy")
    following = dict(pairwise(layers))
    shown = {
        "probe, intact": rows("probe", "accuracy"),
        "fresh probe where the label was erased": rows("probe_after_erasure", "accuracy"),
        "intact tokens' probe at the next layer": [r for r in later if r["probed_layer"] == following[r["layer"]]],
        "intact tokens' probe at the last layer": [r for r in later if r["probed_layer"] == layers[-1]],
    }
    for n, (name, found) in enumerate(shown.items(), start=len(CURVES)):
        curve(fig, found, name, n, row=1, col=3)
    if facts.floors is not None:
        level(fig, facts.floors["availability"], layers, "most frequent label", row=1, col=3)
    for col in (1, 2, 3):
        layer_axes(fig, facts.n_layers, "layer of the CLS token that is changed", row=1, col=col)
        share_axis(fig, "share of test images" if col == 1 else "", row=1, col=col)
    (intact,) = rows("intact", "accuracy")
    level(fig, intact["value"], layers, "intact", dash="dash", row=1, col=1)
    middle = layers[len(layers) // 2]
    erased, other = (
        next(r["value"] for r in rows(name, "accuracy") if r["layer"] == middle) for name in ("erased", "shuffle")
    )
    title = (f"{facts.model}: with the label erased from the CLS token at layer {middle} the output is right in {erased:.2f}, "
             f"with {CURVES['shuffle']} in {other:.2f}, intact in {intact['value']:.2f}")  # fmt: skip
    return finish(fig, title, shared="all")
