"""The figure of the donor study: availability and use of every model, and the two numbers that sum it up."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, finish, rgba
from clsinterp.studies.donors.bootstrap import Interval
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

Facts = dict[str, Any]
WIDE = 3  # panels to a row
SPACE = 0.4  # between rows of panels, times their number
TALLER = 80  # pixels above the panels for titles of two lines


def gap_figure(table: pa.Table, models: Sequence[Facts]) -> go.Figure:
    """One panel per model, availability and use with the area between them shaded, the crossing marked; last a panel
    that ranks the models by that area.

    Args:
        table: rows with ``model, curve, readout, layer, pairs`` and a point; curves ``availability``, ``use``, ``host``.
        models: for each its ``model``, ``n_layers``, ``chance``, ``intact``, and the intervals ``gap`` and ``crossing``.
    """
    n = len(models) + (len(models) > 1)
    columns = min(WIDE, n)
    titles = [_title(m) for m in models] + (["area between availability and use"] if len(models) > 1 else [])
    rows = math.ceil(n / columns)
    fig = panel_grid(titles, columns, horizontal_spacing=0.06, vertical_spacing=SPACE / rows if rows > 1 else 0)
    for i, facts in enumerate(models):
        where: dict[str, Any] = {"row": i // columns + 1, "col": i % columns + 1}
        _model(fig, table, facts, where)
        share_axis(fig, "share of swapped images" if where["col"] == 1 else "", **where)
        layer_axes(fig, facts["n_layers"], "layer of the swap", **where)
    if len(models) > 1:
        _ranking(fig, models, {"row": (n - 1) // columns + 1, "col": (n - 1) % columns + 1})
    images = ", ".join(str(k) for k in sorted({m["n"] for m in models}))
    title = (
        "What the CLS token says and what the output does with it<br>"
        f"<sup>CLS token taken from an image of another class, one layer at a time; n = {images} test images; "
        "bands and whiskers: 95%.<br>"
        "The gap is the area between availability and use, each counted from chance (0) to all (1).</sup>"
    )
    # The plot area stays as tall as it was, so the legend stays where `finish` put it.
    height = 240 + 350 * rows
    fig = finish(fig, title, height)
    return fig.update_layout(height=height + TALLER, margin_t=100 + TALLER, title_y=1 - 40 / (height + TALLER))


def sums(table: pa.Table, shown: Shown) -> Facts:
    """What `gap_figure` takes of a model, from the table that has it all. A number that is not there has no row."""
    rows = {row["curve"]: row for row in pick(table, model=shown.name, readout="output", layer=None)}
    none = Interval(math.nan, math.nan, math.nan, 0.0)
    found = {
        name: Interval(rows[name]["value"], rows[name]["ci_low"], rows[name]["ci_high"]) if name in rows else none
        for name in ("gap", "crossing")
    }
    intact = rows["intact"]
    return {"model": shown.name, "n_layers": len(shown.layers), "n": intact["n"], "chance": 1 / shown.n_classes,
            "intact": intact["value"], **found}  # fmt: skip


def _title(facts: Facts) -> str:
    gap, cross = facts["gap"], facts["crossing"]
    where = f"crosses at {cross.value:.1f}" if _crosses(facts) else "does not cross"
    small = f"<span style='font-size:12px'>[{gap.low:.2f}, {gap.high:.2f}]</span>"
    return f"<b>{facts['model']}</b><br>gap {gap.value:.2f} {small}, {where}"


def _crosses(facts: Facts) -> bool:
    """Whether there is a crossing to show: one that most draws of the bootstrap do not have is none."""
    return not math.isnan(facts["crossing"].value) and facts["crossing"].exists >= 0.5


def _model(fig: go.Figure, table: pa.Table, facts: Facts, where: dict[str, Any]) -> None:
    points = [r for r in pick(table, model=facts["model"]) if r.get("pairs") is None]

    def of(name: str, readout: str) -> list[dict[str, Any]]:
        return [r for r in points if r["curve"] == name and r["readout"] == readout]

    available, use, host = of("availability", "probe"), of("use", "output"), of("host", "output")
    layers = [r["layer"] for r in use]
    edge = [r["value"] for r in available] + [r["value"] for r in reversed(use)]
    fig.add_scatter(
        x=layers + layers[::-1], y=edge, fill="toself", fillcolor=rgba(GREY, 0.16), line_width=0, mode="lines",
        hoverinfo="skip", name="gap: readable, not used", legendgroup="gap", **where,
    )  # fmt: skip
    curve(
        fig, available, "availability: a probe reads the donor's label from the token", BLUE, symbol="circle", **where
    )
    curve(fig, use, "use: the output names the donor's label", ORANGE, symbol="square", **where)
    curve(fig, host, "the output names the image's own label", GREEN, dash="dash", **where)
    for readout, dash in zip(
        dict.fromkeys(r["readout"] for r in points if r["readout"].endswith("alone")), ("dot", "dashdot"), strict=False
    ):
        name = readout.replace("patch_mean", "patch mean").replace("cls", "CLS").replace("distill", "distillation")
        curve(
            fig,
            of("use", readout),
            f"use by the {name.removesuffix(' alone')} read-out alone",
            ORANGE,
            dash=dash,
            band=False,
            **where,
        )
    level(fig, facts["chance"], layers, "chance", **where)
    _crossing(fig, facts, use, host, where)


def _crossing(fig: go.Figure, facts: Facts, use: list, host: list, where: dict[str, Any]) -> None:
    """A mark where the output begins to follow the donor, with its interval."""
    cross = facts["crossing"]
    if not _crosses(facts):
        return
    i = min(int(cross.value), len(use) - 2) if len(use) > 1 else 0
    share = cross.value - i
    height = use[i]["value"] + share * (use[min(i + 1, len(use) - 1)]["value"] - use[i]["value"])
    fig.add_scatter(
        x=[cross.value], y=[height], mode="markers", name="crossing: from here on the output follows the donor",
        legendgroup="crossing", marker={"symbol": "star", "size": 13, "color": PURPLE, "line": {"width": 1, "color": "white"}},
        error_x={"type": "data", "symmetric": False, "array": [cross.high - cross.value],
                 "arrayminus": [cross.value - cross.low], "color": PURPLE, "thickness": 1.5},
        hovertemplate=f"crossing at layer {cross}<extra></extra>", **where,
    )  # fmt: skip


def _ranking(fig: go.Figure, models: Sequence[Facts], where: dict[str, Any]) -> None:
    """Gap of every model with its interval, largest on top."""
    order = sorted(models, key=lambda m: m["gap"].value)
    gaps = [m["gap"] for m in order]
    labels = [f"<b>{m['model']}</b>  {g.value:.2f}" for m, g in zip(order, gaps, strict=True)]
    fig.add_scatter(
        x=[g.value for g in gaps], y=list(range(len(order))), mode="markers", showlegend=False,
        marker={"color": GREY, "size": 10},
        error_x={"type": "data", "symmetric": False, "array": [g.high - g.value for g in gaps],
                 "arrayminus": [g.value - g.low for g in gaps], "color": GREY, "thickness": 1.5},
        hovertemplate="%{x:.3f}<extra></extra>", **where,
    )  # fmt: skip
    low, high = min(0.0, *(g.low for g in gaps)), max(g.high for g in gaps)
    fig.add_scatter(
        x=[low] * len(order), y=[i + 0.32 for i in range(len(order))], mode="text", text=labels, showlegend=False,
        textposition="middle right", hoverinfo="skip", **where,
    )  # fmt: skip
    fig.update_xaxes(title_text="gap", range=[low - 0.02, high + 0.05], **where)
    fig.update_yaxes(showticklabels=False, range=[-0.5, len(order) - 0.3], **where)


def confusability_figure(table: pa.Table, models: Sequence[Facts], kinds: Sequence[str]) -> go.Figure:
    """Use by how confusable host's and donor's class are for the intact model, one panel per model."""
    columns = min(WIDE, len(models))
    rows = math.ceil(len(models) / columns)
    titles = [m["model"] for m in models]
    fig = panel_grid(titles, columns, horizontal_spacing=0.06, vertical_spacing=SPACE / rows if rows > 1 else 0)
    for i, facts in enumerate(models):
        where: dict[str, Any] = {"row": i // columns + 1, "col": i % columns + 1}
        for k, kind in enumerate(kinds):
            for name, dash in (("use", "solid"), ("host", "dot")):
                label = f"{'donor' if name == 'use' else 'own'} label, {kind} classes"
                curve(
                    fig,
                    pick(table, model=facts["model"], curve=name, pairs=kind),
                    label,
                    COLOURS[k],
                    dash=dash,
                    **where,
                )
        share_axis(fig, "share of swapped images" if where["col"] == 1 else "", **where)
        layer_axes(fig, facts["n_layers"], "layer of the swap", **where)
    return finish(fig, "Whom the output follows, by how alike the two classes are", 240 + 330 * rows)
