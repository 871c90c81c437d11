"""The figure of the frequency study: similarity and probes on filtered images, and the random CLS embedding."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, key, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import COLOURS, GREY
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

GROUPS = {"cls": "solid", "patches": "dot"}
TITLES = ("similarity to the low-pass image", "similarity to the high-pass image", "amplitude exchanged below a cut-off",
          "probes on low-pass images", "probes on high-pass images", "CLS embedding learned or random")  # fmt: skip


def frequency_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Six panels: low-pass, high-pass, exchanged amplitude; probes on low-pass and high-pass; the random embedding.

    Colours are cut-offs and dashes token groups, in all panels alike, so that one legend serves them.

    Args:
        table: the study's tidy table.
        shown: for names and the number of classes.
    """
    intact = pick(table, measure="probe", kind="intact", group="cls")
    fig = panel_grid([titled(title, intact) for title in TITLES], columns=3, horizontal_spacing=0.07)

    def line(points: list, name: str, style: int | str, group: str, row: int, col: int) -> None:
        curve(fig, points, name, style, dash=GROUPS[group], row=row, col=col)

    cuts = sorted({row["cutoff"] for row in pick(table, kind="low-pass")})  # in shares of Nyquist
    middle = cuts[len(cuts) // 2 - 1]
    for group in GROUPS:
        for col, kind in enumerate(("low-pass", "high-pass"), start=1):
            for n, cut in enumerate(cuts):
                for row, measure in ((1, "similarity"), (2, "probe")):
                    points = pick(table, measure=measure, kind=kind, cutoff=cut, group=group)
                    line(points, f"{cut:g} of Nyquist", n, group, row, col)
            line(pick(table, measure="probe", kind="intact", group=group), "intact images", GREY, group, 2, col)
        for measure, name, style in (("similarity", "itself", 5), ("to the donor", "the amplitude's donor", 6)):
            points = pick(table, measure=measure, kind="amplitude exchanged", cutoff=middle, group=group)
            line(points, f"at {middle:g}: to {name}", style, group, 1, 3)
    key(fig, "CLS token (solid)", row=1, col=1)
    key(fig, "mean patch (dotted)", "dot", row=1, col=1)
    for name, colour in (("learned", COLOURS[0]), ("random", COLOURS[1])):
        points = pick(table, measure="refitted head", embedding=name)
        error = {"symmetric": False, "array": [p["ci_high"] - p["value"] for p in points],
                 "arrayminus": [p["value"] - p["ci_low"] for p in points]}  # fmt: skip
        fig.add_bar(
            x=[p["kind"] for p in points], y=[p["value"] for p in points], error_y=error, name=f"{name} CLS embedding",
            marker_color=colour, row=2, col=3,
        )  # fmt: skip
    kinds = [p["kind"] for p in pick(table, measure="refitted head", embedding="learned")]
    level(fig, 1 / shown.n_classes, kinds, "chance", row=2, col=3)
    for col in (1, 2, 3):
        fig.update_yaxes(title_text="cosine" if col == 1 else None, range=[-0.3, 1.05], row=1, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=2, col=col)
        for row in (1, 2):
            layer_axes(fig, len(shown.layers), row=row, col=col)
    fig.update_xaxes(title_text="test images", dtick=None, row=2, col=3)
    last = {
        kind: pick(table, measure="probe", kind=kind, cutoff=c, group="cls")[-1]["value"]
        for kind, c in (("low-pass", middle), ("high-pass", middle), ("intact", None))
    }
    title = (f"{shown.name}: of {last['intact']:.2f} the last block's CLS probe keeps {last['low-pass']:.2f} on what is below "
             f"{middle:g} of Nyquist, {last['high-pass']:.2f} above")  # fmt: skip
    return finish(fig, title, panel=300, shared=((1, 2),))
