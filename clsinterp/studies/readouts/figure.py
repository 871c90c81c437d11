"""The figures of the read-outs study: each read-out, their averages, how alike they are, and how far samples can be trusted."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, heat, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import COLOURS, GREY
from clsinterp.studies.readouts.agreement import grid
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

KINDS = ("intact", "constant", "learned constant", "gaussian", "generator", "augment")  # of CLS token
WIDTHS = (2, 5, 2, 2, 4, 1.5)  # of the lines of kinds: what covers another one is thinner


def readouts_figure(table: pa.Table, pairs: pa.Table, shown: Shown) -> go.Figure:
    """Four panels; the note's numbers as open circles where the table has them.

    Args:
        table: rows with ``curve, layer, averaged`` and a point; curves ``output``, each kind, and ``average, KIND``.
        pairs: rows with ``kind, layer, other, same answer, phi``, for each pair of read-outs once.
        shown: for names and the number of classes.
    """
    n, output = len(shown.layers), pick(table, curve="output")
    titles = ["one read-out, by its block", "average of the last k read-outs", "generator: same answer",
              "generator: right together beyond chance (phi)"]  # fmt: skip
    fig = panel_grid([titled(title, output) for title in titles], columns=2, horizontal_spacing=0.1)
    for k, kind in enumerate(KINDS):
        dash = (
            "dash" if kind == "learned constant" else "solid"
        )  # where training moves it little it lies on the constant
        curve(fig, pick(table, curve=kind), kind, k, width=WIDTHS[k], dash=dash, row=1, col=1)
        curve(
            fig, pick(table, curve=f"average, {kind}"), kind, k, x="averaged", width=WIDTHS[k], dash=dash, row=1, col=2
        )
        if his := pick(table, curve=f"published, {kind}"):
            fig.add_scatter(
                x=[r["layer"] for r in his], y=[r["value"] for r in his], name=f"{kind}, in the note", mode="markers",
                marker={"symbol": "circle-open", "size": 11, "color": COLOURS[k], "line": {"width": 2}}, row=1, col=1,
            )  # fmt: skip
    for col, x in ((1, shown.layers), (2, range(1, n + 1))):
        level(fig, output[0]["value"], x, "the model's output", dash="dash", row=1, col=col)
        level(fig, 1 / shown.n_classes, x, "chance", row=1, col=col)
        share_axis(fig, "accuracy" if col == 1 else "", row=1, col=col)
        values = grid(pick(pairs, kind="generator"), ("same answer", "phi")[col - 1], n)
        bar = 1.02 if col == 2 else None
        heat(fig, values, shown.layers, shown.layers, bar=bar, row=2, col=col)
        layer_axes(fig, n, "block of the read-out", row=2, col=col)
    layer_axes(fig, n, "block that fills the CLS token", row=1, col=1)
    layer_axes(fig, n, "k", row=1, col=2)
    last = {kind: pick(table, curve=kind, layer=n - 1)[0]["value"] for kind in KINDS}
    best = max((kind for kind in KINDS if kind != "intact"), key=lambda kind: last[kind])
    title = (f"{shown.name}: the last block fills a fresh token ({best}) with {last[best]:.2f} of labels, "
             f"the intact one with {last['intact']:.2f}")  # fmt: skip
    return finish(fig, title, shared=((1,),))


def calibration_figure(table: pa.Table, shown: Shown, samples: int) -> go.Figure:
    """Four panels: calibration error and agreement by block, reliability and agreement by entropy at the last block.

    Args:
        table: rows of `clsinterp.studies.readouts.calibration.measure`.
        shown: for names.
        samples: drawn for an image.
    """
    last, right = max(shown.layers), pick(table, curve="calibrated")
    titles = ["expected calibration error", "samples that say what the model says",
              f"confidence and accuracy, block {last}", f"agreement by entropy of the counts, block {last}"]  # fmt: skip
    fig = panel_grid([titled(title, right) for title in titles], columns=2, horizontal_spacing=0.1)
    names = {"counts": "counts of samples", "mean answer": "mean answer of samples", "model": "the model's output"}
    (model,) = pick(table, curve="ece, model")
    for k, (kind, name) in enumerate(names.items()):
        if kind != "model":
            curve(fig, pick(table, curve=f"ece, {kind}"), name, k, row=1, col=1)
        layer = None if kind == "model" else last
        curve(fig, pick(table, curve=f"reliability, {kind}", layer=layer), name, k, x="x", row=2, col=1)
    level(fig, model["value"], shown.layers, names["model"], COLOURS[2], "dash", row=1, col=1)
    fig.add_scatter(
        x=[0, 1], y=[0, 1], name="calibrated", mode="lines", line={"color": GREY, "dash": "dot"}, row=2, col=1
    )
    curve(fig, pick(table, curve="agreement"), "says what the model says", 3, row=1, col=2)
    curve(fig, right, "mean answer is right", 1, row=1, col=2)
    curve(
        fig, pick(table, curve="agreement by entropy", layer=last), "says what the model says", 3, x="x", row=2, col=2
    )
    for row, col, text in ((1, 1, ""), (1, 2, "share"), (2, 1, "accuracy"), (2, 2, "share of samples")):
        share_axis(fig, text, row=row, col=col)
        layer_axes(fig, len(shown.layers), "block that fills the token", row=row, col=col) if row == 1 else None
    fig.update_yaxes(title_text="error", range=None, rangemode="tozero", row=1, col=1)
    fig.update_xaxes(title_text="confidence", row=2, col=1)
    fig.update_xaxes(title_text="entropy of the counts, nats (fifths of the images)", row=2, col=2)
    (error,) = pick(table, curve="ece, counts", layer=last)
    title = (f"{shown.name}: {samples} samples of the last block's read-out are off by {error['value']:.2f}, "
             f"the model's output by {model['value']:.2f}")  # fmt: skip
    return finish(fig, title)
