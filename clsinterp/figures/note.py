"""Plotly figures from tables: each function takes curves and returns a `Figure`."""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from clsinterp.errors import RequestError
from clsinterp.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, finish

# curve -> (name in the legend, colour, symbol). Symbols and dashes tell the curves apart in grey.
STYLE = {
    "probe": ("probe: label read from CLS", BLUE, "circle"),
    "shuffle": ("output, CLS swapped at layer", ORANGE, "square"),
    "shuffle_cls_only": ("CLS-only output, CLS swapped", GREEN, "diamond"),
    "donor": ("output names the donor's label", RED, "x"),
    "lens": ("lens accuracy", ORANGE, "square"),
}
FLAT = {"intact": ("output, intact", ORANGE), "intact_cls_only": ("CLS-only output, intact", GREEN)}
Row = dict[str, Any]


def _select(curves: pa.Table, curve: str, metric: str = "accuracy") -> list[Row]:
    rows = [r for r in curves.to_pylist() if r["curve"] == curve and r["metric"] == metric]
    return sorted(rows, key=lambda r: (r["layer"] is not None, r["layer"], r["probed_layer"] or 0))


def _rgba(colour: str, alpha: float) -> str:
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{alpha})"


def _line(
    fig: go.Figure, rows: Sequence[Row], name: str, colour: str, symbol: str, where: dict[str, Any], dash: str = "solid"
) -> None:
    """A curve with its 95% interval as a band."""
    if not rows:
        return
    x = [r["layer"] for r in rows]
    band = [r["ci_high"] for r in rows] + [r["ci_low"] for r in reversed(rows)]
    fig.add_scatter(
        x=x + x[::-1], y=band, fill="toself", fillcolor=_rgba(colour, 0.18), line_width=0,
        hoverinfo="skip", showlegend=False, legendgroup=name, mode="lines", **where,
    )  # fmt: skip
    fig.add_scatter(
        x=x, y=[r["value"] for r in rows], name=name, legendgroup=name, mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash}, marker={"symbol": symbol, "size": 7},
        customdata=[[r["ci_low"], r["ci_high"], r["n"]] for r in rows],
        hovertemplate="layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]}",
        **where,
    )  # fmt: skip


def _level(
    fig: go.Figure, value: float, x: Sequence[int], name: str, colour: str, dash: str, where: dict[str, Any]
) -> None:
    """A horizontal line across the panel, with a legend entry."""
    fig.add_scatter(
        x=[min(x) - 0.4, max(x) + 0.4], y=[value, value], name=name, legendgroup=name, mode="lines",
        line={"color": colour, "dash": dash, "width": 1.5}, hovertemplate="%{y:.3f}", **where,
    )  # fmt: skip


def _panel(
    fig: go.Figure, curves: pa.Table, facts: dict[str, Any], where: dict[str, Any], published: dict | None
) -> None:
    """One model of the note's figure."""
    layers = sorted({r["layer"] for r in _select(curves, "shuffle")})
    for curve, (name, colour) in FLAT.items():
        for row in _select(curves, curve):
            _level(fig, row["value"], layers, name, colour, "dash", where)
    _level(fig, 1 / facts["n_classes"], layers, "chance", GREY, "dot", where)
    for curve in ("probe", "shuffle", "shuffle_cls_only"):
        _line(fig, _select(curves, curve), *STYLE[curve], where)
    for curve, values in (published or {}).items():
        if curve in ("probe", "shuffle", "shuffle_cls_only"):
            fig.add_scatter(
                x=list(range(len(values))), y=values, name=f"published {curve.replace('_', ' ')}", mode="markers",
                legendgroup=f"published {curve}",
                marker={"symbol": "circle-open", "size": 11, "color": STYLE[curve][1], "line": {"width": 2}},
                hovertemplate="published, layer %{x}: %{y:.3f}", **where,
            )  # fmt: skip


def _panel_title(facts: dict[str, Any]) -> str:
    note = facts.get("note")
    return f"{facts['model']}<br><sup>{note}</sup>" if note else facts["model"]


def note_figure(runs: Sequence[tuple[dict[str, Any], pa.Table]], published: bool = False) -> go.Figure:
    """The note's figure: per model, where the label can be read (probe) and where the output depends on it (shuffle).

    Args:
        runs: (facts, curves) of each run, as `clsinterp.runs.results.read_run` gives them; one panel each, shared y axis.
        published: overlay the published curves as open circles where the model is one of the five checkpoints.

    Raises:
        RequestError: no runs; or `published`, and none of the models is one of the five.
    """
    if not runs:
        raise RequestError("no runs were given; name at least one run folder.")
    overlays = [_published(facts["model"]) if published else None for facts, _ in runs]
    if published and not any(overlays):
        given, known = ", ".join(f["model"] for f, _ in runs), ", ".join(published_curves()["checkpoints"].values())
        raise RequestError(f"published=True was given, but none of {given} is one of the published models: {known}.")
    columns = min(3, len(runs))
    n_rows = math.ceil(len(runs) / columns)
    fig = make_subplots(
        rows=n_rows,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.16 / (n_rows - 1) if n_rows > 1 else 0,
        subplot_titles=[_panel_title(facts) for facts, _ in runs],
    )
    for i, (facts, curves) in enumerate(runs):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        _panel(fig, curves, facts, where, overlays[i])
        fig.update_xaxes(
            title_text="layer (block whose output is read or swapped)" if columns == 1 else "layer",
            dtick=1 if facts["n_layers"] <= 16 else None,
            **where,
        )
    fig.update_yaxes(range=[-0.02, 1.02], matches="y")
    for row in range(1, n_rows + 1):
        fig.update_yaxes(title_text="accuracy", row=row, col=1)
    counts = sorted({r["n"] for _, curves in runs for r in curves.slice(0, 1).to_pylist()})
    note = f"n = {', '.join(map(str, counts))} test images; bands: 95% intervals"
    top = 130 if any(facts.get("note") for facts, _ in runs[:columns]) else 100  # notes are second lines
    title = f"Availability against use of the CLS token<br><sup>{note}</sup>"
    return finish(fig, title, 130 + top + 330 * n_rows, top)


def lens_figure(curves: pa.Table, facts: dict[str, Any]) -> go.Figure:
    """Probe accuracy, lens accuracy and, on the right axis, lens identifiability by layer."""
    fig = make_subplots(specs=[[{"secondary_y": True}]])
    _line(fig, _select(curves, "probe"), *STYLE["probe"], {"secondary_y": False})
    _line(fig, _select(curves, "lens"), *STYLE["lens"], {"secondary_y": False})
    _line(
        fig,
        _select(curves, "lens", "identifiability"),
        "lens identifiability (right axis)",
        PURPLE,
        "triangle-up",
        {"secondary_y": True},
        dash="dash",
    )
    fig.update_xaxes(title_text="layer", dtick=1 if facts["n_layers"] <= 16 else None)
    fig.update_yaxes(title_text="accuracy", range=[-0.02, 1.02], secondary_y=False)
    fig.update_yaxes(title_text="identifiability (1 - rank / C)", range=[-0.02, 1.02], showgrid=False, secondary_y=True)
    norm = {True: "with the final norm", False: "without the final norm", None: "no final norm in this family"}[
        facts["final_norm"]
    ]
    return finish(fig, f"Logit lens on the CLS token: {facts['model']}<br><sup>{norm}</sup>", 560)


def restoration_figure(curves: pa.Table, facts: dict[str, Any]) -> go.Figure:
    """Heatmap: accuracy of the probe at layer j (right) after CLS tokens were swapped at layer l (down)."""
    rows = _select(curves, "restoration")
    swapped = sorted({r["layer"] for r in rows})
    probed = sorted({r["probed_layer"] for r in rows})
    cell = {(r["layer"], r["probed_layer"]): r for r in rows}
    z = [[cell[s, p]["value"] if (s, p) in cell else None for p in probed] for s in swapped]
    text = [[f"{v:.2f}" if v is not None else "" for v in line] for line in z]
    fig = go.Figure(
        go.Heatmap(
            x=probed, y=swapped, z=z, text=text, texttemplate="%{text}", colorscale="Viridis", zmin=0, zmax=1, xgap=1, ygap=1,
            colorbar={"title": "accuracy"}, hovertemplate="swapped at %{y}, probed at %{x}: %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    fig.update_xaxes(title_text="probed layer", dtick=1, showgrid=False, zeroline=False)
    fig.update_yaxes(title_text="layer of the swap", dtick=1, autorange="reversed", showgrid=False, zeroline=False)
    return finish(fig, f"Restoration: is the label back in the CLS token after a swap? {facts['model']}", 620)


def donor_figure(curves: pa.Table, facts: dict[str, Any]) -> go.Figure:
    """After a swap at layer l: how often the output names the image's own label, how often the donor's."""
    fig = go.Figure()
    _line(fig, _select(curves, "shuffle"), "output names the image's label", ORANGE, "square", {})
    _line(fig, _select(curves, "donor"), *STYLE["donor"], {})
    layers = sorted({r["layer"] for r in _select(curves, "shuffle")})
    _level(fig, 1 / facts["n_classes"], layers, "chance", GREY, "dot", {})
    fig.update_xaxes(title_text="layer of the swap", dtick=1 if facts["n_layers"] <= 16 else None)
    fig.update_yaxes(title_text="share of images", range=[-0.02, 1.02])
    return finish(fig, f"Whom the output follows after a CLS swap: {facts['model']}", 560)


def study_figures(runs: Sequence[tuple[dict[str, Any], pa.Table]], published: bool = False) -> list[go.Figure]:
    """All figures of one or several runs: the note's panels, then lens, donor and restoration of each run."""
    figures = [note_figure(runs, published)]
    for facts, curves in runs:
        figures += [draw(curves, facts) for draw in (lens_figure, donor_figure, restoration_figure)]
    return figures


def published_curves() -> dict[str, Any]:
    """The published result, with its source and how it was read off."""
    return json.loads(files("clsinterp").joinpath("figures/published_curves.json").read_text())


def _published(model: str) -> dict[str, Any] | None:
    data = published_curves()
    return next((data["curves"][key] for key, name in data["checkpoints"].items() if name == model), None)
