"""The figure of the subspace study: every partial swap, and below how many directions do what the whole token does."""

import math

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import BLUE, COLOURS, GREY, ORANGE, rgba
from clsinterp.studies.shown import Shown
from clsinterp.studies.subspace.bases import PLAIN, WHITENED
from clsinterp.studies.tidy import one, pick

CURVES = {
    "shuffle": "the whole token", "swap_probe_subspace": "the probe's row space",
    "swap_leace": "LEACE's component (same rank)", "swap_complement": "all but the probe's row space",
    "swap_random_subspace": "random subspaces (same rank; darker: all draws)",
}  # fmt: skip
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
    fig = panel_grid(titles, columns=2, horizontal_spacing=0.1)
    for col, measure in enumerate(("donor", "accuracy"), start=1):
        for n, (name, label) in enumerate(CURVES.items()):
            curve(fig, pick(table, curve=name, measure=measure, draw=None), label, n, row=1, col=col)
        _spread(fig, table, measure, col)
        intact = one(table, curve="intact", measure=measure)["value"]
        level(fig, intact, layers, "nothing swapped", dash="dash", row=1, col=col)
        layer_axes(fig, len(layers), "layer of the swap", row=1, col=col)
        share_axis(fig, "share of test images" if col == 1 else "", row=1, col=col)
    for inner, colour in INNER.items():
        ranks = [r for r in pick(table, curve="used_rank", inner=inner) if r["value"] is not None]
        fig.add_bar(
            x=[r["layer"] for r in ranks], y=[r["value"] for r in ranks], text=[f"{r['value']:.0f}" for r in ranks],
            name=f"r(l), {inner} inner product", marker_color=rgba(colour, 0.6), row=2, col=1,
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
            fade = 0.35 + 0.65 * k / max(1, len(drawn) - 1)
            line = [r for r in steps if r["layer"] == layer]
            name = f"{inner}, layers {drawn[0]} (pale) to {drawn[-1]}"
            curve(fig, line, name, rgba(colour, fade), x="rank", row=2, col=2)
    fig.update_xaxes(title_text="directions swapped", **ticks, row=2, col=2)
    fig.update_yaxes(title_text="share of the full swap's effect", rangemode="tozero", row=2, col=2)
    return finish_panels(fig, f"Is what is read what is used? {shown.name}", entries=(6, 3))


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
        fillcolor=rgba(COLOURS[len(CURVES) - 1], 0.3), showlegend=False, name="least to largest draw", row=1, col=col,
    )  # fmt: skip
