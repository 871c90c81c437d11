"""The figure of the subspace study: every partial swap, and below how many directions do what the whole token does."""

import math

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.colour import ink, rgb
from clsinterp.figures.layout import BAND, finish
from clsinterp.figures.pieces import curve, key, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import BLUE, COLOURS, GREY, ORANGE, rgba
from clsinterp.studies.shown import Shown
from clsinterp.studies.subspace.bases import PLAIN, WHITENED
from clsinterp.studies.tidy import one, pick

CURVES = {
    "shuffle": "the whole token", "swap_probe_subspace": "the probe's row space",
    "swap_leace": "LEACE's component (same rank)", "swap_complement": "all but the probe's row space",
    "swap_random_subspace": "random subspaces (same rank; darker: all draws)",
}  # fmt: skip
WIDTHS = (7, 5, 3.5, 2, 1.2)  # of the lines, as several may coincide
INNER = {PLAIN: BLUE, WHITENED: ORANGE}


def subspace_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Four panels.

    Args:
        table: rows with ``curve, measure, layer, draw, rank, inner`` and a point.
        shown: for names and layers.
    """
    layers = shown.layers
    titles = ["output names the donor's label", "output names the image's own label",
              "smallest subspace with 95% of the full swap's effect", "share of the effect by directions swapped"]  # fmt: skip
    points = pick(table, curve="shuffle", measure="donor"), pick(table, curve="used_rank")
    fig = panel_grid(
        [titled(title, points[i // 2]) for i, title in enumerate(titles)], columns=2, horizontal_spacing=0.1
    )
    for col, measure in enumerate(("donor", "accuracy"), start=1):
        for n, (name, label) in enumerate(CURVES.items()):
            curve(fig, pick(table, curve=name, measure=measure, draw=None), label, n, width=WIDTHS[n], row=1, col=col)
        _spread(fig, table, measure, col)
        intact = one(table, curve="intact", measure=measure)["value"]
        level(fig, intact, layers, "nothing swapped", dash="dash", row=1, col=col)
        layer_axes(fig, len(layers), "layer of the swap", row=1, col=col)
        share_axis(fig, "share of test images" if col == 1 else "", row=1, col=col)
    for inner, colour in INNER.items():
        ranks = [r for r in pick(table, curve="used_rank", inner=inner) if r["value"] is not None]
        fig.add_bar(
            x=[r["layer"] for r in ranks], y=[r["value"] for r in ranks], text=[f"{r['value']:.0f}" for r in ranks],
            name=f"r(l), {inner} inner product", marker_color=colour, row=2, col=1, textposition="inside", textangle=0,
            insidetextfont={"size": 9, "color": ink(rgb(colour))}, constraintext="none",
            hovertemplate="layer %{x}: %{y:.0f}<extra>r(l)</extra>",
        )  # fmt: skip
    curve(fig, pick(table, curve="row_space_rank"), "rank of the probe's row space", GREY, dash="dot", row=2, col=1)
    ticks = {"type": "log", "tickvals": [2**k for k in range(12)]}
    most = math.log10(max([2.0, *(r["value"] for r in pick(table, curve="used_rank") if r["value"] is not None)]))
    fig.update_yaxes(title_text="directions", range=[-0.1, most + 0.15], **ticks, row=2, col=1)
    fig.update_xaxes(range=[layers[0] - 0.6, layers[-1] + 0.6], row=2, col=1)
    layer_axes(fig, len(layers), "layer of the swap", row=2, col=1)
    for inner, colour in INNER.items():
        steps = pick(table, curve="effect_share", inner=inner)
        for k, layer in enumerate(drawn := [i for i in layers if any(r["layer"] == i for r in steps)]):
            fade = 0.45 + 0.55 * k / max(1, len(drawn) - 1)
            line = [r for r in steps if r["layer"] == layer]
            curve(fig, line, "", rgba(colour, fade), x="rank", row=2, col=2)
        if drawn:
            key(fig, f"{inner} inner product, layers {drawn[0]} (pale) to {drawn[-1]}", colour=colour, row=2, col=2)
    fig.update_xaxes(title_text="directions swapped", **ticks, row=2, col=2)
    fig.update_yaxes(title_text="share of the full swap's effect", rangemode="tozero", row=2, col=2)
    whole = {r["layer"]: r["value"] for r in pick(table, curve="shuffle", measure="donor", draw=None)}
    most = max(layers, key=lambda layer: (whole[layer], -layer))  # where the swap does most
    inside, outside = (
        one(table, curve=name, measure="donor", layer=most, draw=None)["value"]
        for name in ("swap_probe_subspace", "swap_complement")
    )
    title = (f"{shown.name}: a swap at layer {most} turns {whole[most]:.2f} of outputs to the donor's label, one of the probe's "
             f"row space alone {inside:.2f}, one of all the rest {outside:.2f}")  # fmt: skip
    return finish(fig, title, shared=((1,),))


def _spread(fig: go.Figure, table: pa.Table, measure: str, col: int) -> None:
    """The least and the largest share over the random draws, as a band."""
    draws: dict[int, list[float]] = {}
    for row in pick(table, curve="swap_random_subspace", measure=measure):
        if row["draw"] is not None:
            draws.setdefault(row["layer"], []).append(row["value"])
    low, high = ([(i, end(values)) for i, values in sorted(draws.items())] for end in (min, max))
    edge = [*high, *reversed(low)]
    fig.add_scatter(
        x=[x for x, _ in edge], y=[y for _, y in edge], fill="toself", mode="lines", line_width=0, hoverinfo="skip",
        fillcolor=rgba(COLOURS[len(CURVES) - 1], 0.3), name=CURVES["swap_random_subspace"], meta=BAND, row=1, col=col,
    )  # fmt: skip
