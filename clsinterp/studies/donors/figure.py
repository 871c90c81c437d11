"""The figure of the donor study: availability and use of every model, and the two numbers that sum it up."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, rgba
from clsinterp.studies.donors.bootstrap import Interval
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

Facts = dict[str, Any]
WIDE = 3  # panels to a row
# read-out -> its name, and the dash of its line
ALONE = {"cls": ("CLS", "dot"), "distill": ("distillation", "dashdot"), "patch_mean": ("patch mean", "longdash")}


def gap_figure(table: pa.Table, models: Sequence[Facts]) -> go.Figure:
    """One panel per model, availability and use with the area between them shaded, the crossing marked; last a panel
    that ranks the models by that area.

    Args:
        table: rows with ``model, curve, readout, layer, pairs`` and a point; curves ``availability``, ``use``, ``host``.
        models: for each its ``model``, ``n_layers``, ``chance``, ``intact``, and the intervals ``gap`` and ``crossing``.
    """
    n = len(models) + (len(models) > 1)
    columns = min(WIDE, n)
    titles = [_title(m) for m in models]
    if len(models) > 1:
        titles.append(titled("area between availability and use", models))
    fig = panel_grid(titles, columns, horizontal_spacing=0.06)
    for i, facts in enumerate(models):
        where: dict[str, Any] = {"row": i // columns + 1, "col": i % columns + 1}
        _model(fig, table, facts, where)
        share_axis(fig, "share of swapped images" if where["col"] == 1 else "", **where)
        layer_axes(fig, facts["n_layers"], "layer of the swap", **where)
    if len(models) > 1:
        _ranking(fig, models, {"row": (n - 1) // columns + 1, "col": (n - 1) % columns + 1})
    note = (
        "CLS token of an image of another class, one layer at a time; bands and whiskers: 95%. Gap: the area between "
        "availability and use, each from chance (0) to all (1)"
    )
    return finish(fig, _found(models), 290, note=note, shared="all")


def _found(models: Sequence[Facts]) -> str:
    order = sorted(models, key=lambda m: m["gap"].value)
    if len(order) == 1:
        (one,) = order
        turns = (
            f"follows the donor from layer {one['crossing'].value:.1f} on"
            if _crosses(one)
            else "never follows the donor"
        )
        return f"{one['model']}: the gap between availability and use is {one['gap'].value:.2f}; the output {turns}"
    ends = [f"{m['gap'].value:.2f} ({m['model']})" for m in (order[0], order[-1])]
    crossing = sum(map(_crosses, models))
    follow = f"{crossing} of {len(models)} outputs come to follow the donor"
    return f"The gap between availability and use is {' to '.join(ends)}; {follow}"


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
    return f"{facts['model']}<br><sup>gap {gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}], {where}; n = {facts['n']} images</sup>"


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
        hoverinfo="skip", name="gap: readable, not used", **where,
    )  # fmt: skip
    curve(fig, available, "availability: a probe reads the donor's label", BLUE, symbol="circle", **where)
    curve(fig, use, "use: the output names the donor's label", ORANGE, symbol="square", **where)
    curve(fig, host, "the output names the image's own label", GREEN, dash="dash", **where)
    for readout, (name, dash) in ALONE.items():
        curve(fig, of("use", f"{readout} alone"), f"use by the {name} read-out alone", ORANGE, dash=dash, **where)
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
        x=[cross.value], y=[height], mode="markers", name="crossing: the output follows the donor from here",
        marker={"symbol": "star", "size": 13, "color": PURPLE, "line": {"width": 1, "color": "white"}},
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
    titles = [
        titled(m["model"], [r for r in pick(table, model=m["model"]) if r["pairs"] in kinds], "images") for m in models
    ]
    fig = panel_grid(titles, columns, horizontal_spacing=0.06)
    for i, facts in enumerate(models):
        where: dict[str, Any] = {"row": i // columns + 1, "col": i % columns + 1}
        for k, kind in enumerate(kinds):
            for name, dash in (("use", "solid"), ("host", "dot")):
                label = f"{'donor' if name == 'use' else 'own'} label, {kind} classes"
                curve(
                    fig,
                    pick(table, model=facts["model"], curve=name, pairs=kind),
                    label,
                    k,
                    dash=dash,
                    **where,
                )
        share_axis(fig, "share of swapped images" if where["col"] == 1 else "", **where)
        layer_axes(fig, facts["n_layers"], "layer of the swap", **where)

    def mean(kind: str) -> float:
        values = [r["value"] for r in pick(table, curve="use", pairs=kind)]
        return sum(values) / len(values)

    said = ", ".join(f"{mean(kind):.2f} of {kind}" for kind in kinds)
    title = f"Outputs name the donor's label, in the mean over layers and models, for {said} pairs of classes"
    return finish(fig, title, 290, shared="all")
