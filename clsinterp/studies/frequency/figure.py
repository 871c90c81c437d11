"""The figure of the frequency study: similarity and probes on filtered images, and the random CLS embedding."""

from collections.abc import Sequence

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, layer_axes, level, panel_grid, share_axis  # fmt: skip
from clsinterp.figures.style import BLUE, COLOURS, GREY, ORANGE
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import pick

GROUPS = {"cls": ("CLS token", "solid"), "patches": ("mean patch", "dot")}


def frequency_figure(table: pa.Table, setup: Setup, cuts: Sequence[float]) -> go.Figure:
    """Six panels: low-pass, high-pass, exchanged amplitude; probes on low-pass and high-pass; the random embedding.

    Args:
        table: the study's tidy table.
        setup: for names and the number of classes.
        cuts: cut-offs, in shares of Nyquist.
    """
    titles = ["similarity to the low-pass image", "similarity to the high-pass image", "amplitude exchanged below the cut-off",
              "probes on low-pass images", "probes on high-pass images", "CLS embedding learned or random"]  # fmt: skip
    fig = panel_grid(titles, columns=3, horizontal_spacing=0.07)

    def lines(
        row: int, col: int, measure: str, kind: str, chosen: Sequence[float], suffix: str = "", first: int = 0
    ) -> None:
        for n, cut in enumerate(chosen, start=first):
            for group, (name, dash) in GROUPS.items():
                points = pick(table, measure=measure, kind=kind, cutoff=cut, group=group)
                label = f"{name}, {cut:g} of Nyquist{suffix}"
                curve(fig, points, label, n, dash=dash, band=False, row=row, col=col)
        layer_axes(fig, len(setup.layers), row=row, col=col)

    for col, kind in enumerate(("low-pass", "high-pass"), start=1):
        lines(1, col, "similarity", kind, cuts)
        fig.update_yaxes(title_text="cosine" if col == 1 else None, range=[-0.3, 1.05], row=1, col=col)
        lines(2, col, "probe", kind, cuts)
        for group, (name, dash) in GROUPS.items():
            points = pick(table, measure="probe", kind="intact", group=group)
            curve(fig, points, f"{name}, intact images", GREY, dash=dash, band=False, row=2, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=2, col=col)
    middle = cuts[len(cuts) // 2 - 1]
    lines(1, 3, "similarity", "amplitude exchanged", [middle], ": to the image itself", first=0)
    lines(1, 3, "to the donor", "amplitude exchanged", [middle], ": to the amplitude's donor", first=1)
    fig.update_yaxes(range=[-0.3, 1.05], row=1, col=3)
    for name, colour in (("learned", BLUE), ("random", ORANGE)):
        points = pick(table, measure="refitted head", embedding=name)
        error = {"symmetric": False, "array": [p["ci_high"] - p["value"] for p in points],
                 "arrayminus": [p["value"] - p["ci_low"] for p in points]}  # fmt: skip
        fig.add_bar(
            x=[p["kind"] for p in points], y=[p["value"] for p in points], error_y=error, name=f"{name} CLS embedding",
            marker_color=colour, row=2, col=3,
        )  # fmt: skip
    kinds = [p["kind"] for p in pick(table, measure="refitted head", embedding="learned")]
    level(fig, 1 / setup.n_classes, kinds, "chance", COLOURS[-1], row=2, col=3)
    fig.update_xaxes(title_text="test images", row=2, col=3)
    share_axis(fig, "accuracy", row=2, col=3)
    return finish_panels(fig, f"Spatial frequency and the CLS token: {setup.name}", entries=(9, 11))
