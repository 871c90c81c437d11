"""The figure of the causality study: what tokens do beside what they tell."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, layer_axes, level, panel_grid, share_axis
from clsinterp.studies.causality.setup import GROUPS
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import pick

TITLES = {
    "turns to the donor's count": "causal: output turns to the donor's count",
    "logit difference": "causal: logit difference (0 host, 1 donor)",
    "probe reads the count": "decodable: the count",
}


def counting_figure(table: pa.Table, setup: Setup, chance: float) -> go.Figure:
    """Three panels, a curve for each group of tokens.

    Args:
        table: rows with ``curve, group, layer, direction`` and a point; curves as in `TITLES`.
        setup: for names.
        chance: of the probes.
    """
    fig = panel_grid(list(TITLES.values()), horizontal_spacing=0.07)
    groups = [group for group in GROUPS if pick(table, group=group)]
    for col, name in enumerate(TITLES, start=1):
        causal = name != "probe reads the count"
        for n, group in enumerate(groups):
            points = pick(table, curve=name, group=group, direction="both" if causal else None)
            curve(fig, points, "CLS token" if group == "CLS" else group, n, row=1, col=col)
        layer_axes(fig, len(setup.layers), "layer of the swap" if causal else "layer", row=1, col=col)
    share_axis(fig, "share of outputs", row=1, col=1)
    share_axis(fig, "accuracy of the probe", row=1, col=3)
    level(fig, chance, setup.layers, "chance", row=1, col=3)
    title = f"Which tokens act, and which tell: counting with {setup.name}"
    return finish_panels(fig, title, entries=(6,), panel=380)
