"""The figure of the read-outs study: each read-out, their averages, and how alike they are."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import pyarrow as pa
from torch import Tensor

from clsinterp.figures.pieces import curve, finish_panels, heat, layer_axes, level, panel_grid, share_axis
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import pick


def readouts_figure(table: pa.Table, alike: Mapping[str, Tensor], setup: Setup, kinds: Sequence[str]) -> go.Figure:
    """Four panels.

    Args:
        table: rows with ``curve, layer, averaged`` and a point; curves ``output``, each kind, and ``average, KIND``.
        alike: ``same answer`` and ``phi`` of the last kind's read-outs, (readers, readers).
        setup: for names and the number of classes.
        kinds: of CLS token.
    """
    n, last = len(setup.layers), kinds[-1]
    titles = ["one read-out, by its block", "average of the last k read-outs", f"same answer ({last})",
              f"right together beyond chance: phi ({last})"]  # fmt: skip
    fig = panel_grid(titles, columns=2, horizontal_spacing=0.1)
    (output,) = [r["value"] for r in pick(table, curve="output")]
    for k, kind in enumerate(kinds):
        curve(fig, pick(table, curve=kind), f"{kind} CLS token", k, row=1, col=1)
        curve(fig, pick(table, curve=f"average, {kind}"), f"{kind} CLS token", k, x="averaged", row=1, col=2)
    for col, x in ((1, setup.layers), (2, range(1, n + 1))):
        level(fig, output, x, "the model's output", dash="dash", row=1, col=col)
        level(fig, 1 / setup.n_classes, x, "chance", row=1, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=1, col=col)
        values = alike[("same answer", "phi")[col - 1]].tolist()
        bar = 1.02 if col == 2 else None
        heat(fig, values, setup.layers, setup.layers, bar=bar, row=2, col=col)
        layer_axes(fig, n, "block of the read-out", row=2, col=col)
    layer_axes(fig, n, "block that fills the CLS token", row=1, col=1)
    layer_axes(fig, n, "k", row=1, col=2)
    return finish_panels(fig, f"Read-outs from every layer: {setup.name}", entries=(6, 0))
