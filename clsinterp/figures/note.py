"""The figures of the note's runs: each function takes curves and returns a `Figure`."""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from clsinterp.errors import RequestError
from clsinterp.figures.also import also_figures
from clsinterp.figures.facts import Facts
from clsinterp.figures.pieces import Row, curve, heat, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import BLUE, GREEN, ORANGE, PURPLE, RED, finish

# curve -> (name in the legend, colour, symbol). Symbols and dashes tell the curves apart in grey.
CURVE_LOOKS = {
    "probe": ("probe: label read from CLS", BLUE, "circle"),
    "shuffle": ("output, CLS swapped at layer", ORANGE, "square"),
    "shuffle_cls_only": ("CLS-only output, CLS swapped", GREEN, "diamond"),
    "donor": ("output names the donor's label", RED, "x"),
    "lens": ("lens accuracy", ORANGE, "square"),
}
FLAT = {"intact": ("output, intact", ORANGE), "intact_cls_only": ("CLS-only output, intact", GREEN)}
HOW = {"mean": "set to the mean", "zero": "set to zero", "noise": "set to noise", "normal": "set to N(0, 1)"}
HELD = {"mean": "others at mean", "zero": "others at zero", "refit": "refitted head", "alone": "its own head"}


def _select(curves: pa.Table, kind: str, metric: str = "accuracy") -> list[Row]:
    rows = [r for r in curves.to_pylist() if r["curve"] == kind and r["metric"] == metric]
    return sorted(rows, key=lambda r: (r["layer"] is not None, r["layer"], r["probed_layer"] or 0))


def _layers(curves: pa.Table) -> tuple[float, float]:
    """Ends of the levels: a little beyond the first and the last layer of the swaps."""
    layers = [r["layer"] for r in _select(curves, "shuffle")]
    return min(layers) - 0.4, max(layers) + 0.4


def _named(kind: str, facts: Facts) -> str:
    """The name of a curve or level in the legend, with what was replaced by what, and what became of other read-outs."""
    name = CURVE_LOOKS[kind][0] if kind in CURVE_LOOKS else FLAT[kind][0]
    tokens = {"cls": "CLS", "cls+distill": "CLS and distillation"}.get(facts.group, facts.group)
    name = name.replace("CLS swapped", f"{tokens} {HOW.get(facts.mode, 'swapped')}")
    if facts.cls_only and kind.endswith("cls_only"):
        name = name.replace("CLS-only output", f"CLS-only output ({HELD[facts.cls_only]})")
    return name


def _floor(fig: go.Figure, curves: pa.Table, facts: Facts, where: dict[str, Any]) -> None:
    """The dotted line of use: where the swapped curve ends if the output follows the swap."""
    if facts.floors is not None:
        without = facts.mode in HOW
        name = "floor: the best constant answer" if without else "floor: the output follows the donor"
        level(fig, facts.floors["use"], _layers(curves), name, **where)


def _look(fig: go.Figure, curves: pa.Table, kind: str, where: dict[str, Any], name: str | None = None) -> None:
    """The curve `kind` as it looks in every figure of a run."""
    known, colour, symbol = CURVE_LOOKS[kind]
    curve(fig, _select(curves, kind), name or known, colour, symbol=symbol, **where)


def _panel(fig: go.Figure, curves: pa.Table, facts: Facts, where: dict[str, Any], published: dict | None) -> None:
    """One model of the note's figure."""
    for kind, (_, colour) in FLAT.items():
        for row in _select(curves, kind):
            level(fig, row["value"], _layers(curves), _named(kind, facts), colour, "dash", **where)
    _floor(fig, curves, facts, where)
    for kind in ("probe", "shuffle", "shuffle_cls_only"):
        _look(fig, curves, kind, where, _named(kind, facts))
    for kind, values in (published or {}).items():
        if kind in ("probe", "shuffle", "shuffle_cls_only"):
            fig.add_scatter(
                x=list(range(len(values))), y=values, name=f"published {kind.replace('_', ' ')}", mode="markers",
                legendgroup=f"published {kind}",
                marker={"symbol": "circle-open", "size": 11, "color": CURVE_LOOKS[kind][1], "line": {"width": 2}},
                hovertemplate="published, layer %{x}: %{y:.3f}", **where,
            )  # fmt: skip


def _panel_title(facts: Facts) -> str:
    return f"{facts.model}<br><sup>{facts.note}</sup>" if facts.note else facts.model


def note_figure(runs: Sequence[tuple[Facts, pa.Table]], published: bool = False) -> go.Figure:
    """The note's figure: per model, where the label can be read (probe) and where the output depends on it (swap).

    Args:
        runs: (facts, curves) of each run; one panel each, shared y axis.
        published: overlay the published curves as open circles where the model is one of the five checkpoints.

    Raises:
        RequestError: no runs; or `published`, and none of the models is one of the five.
    """
    if not runs:
        raise RequestError("no runs were given; name at least one run folder.")
    overlays = [_published(facts.model) if published else None for facts, _ in runs]
    if published and not any(overlays):
        given, known = ", ".join(f.model for f, _ in runs), ", ".join(published_curves()["checkpoints"].values())
        raise RequestError(f"published=True was given, but none of {given} is one of the published models: {known}.")
    columns = min(3, len(runs))
    n_rows = math.ceil(len(runs) / columns)
    fig = panel_grid(
        [_panel_title(facts) for facts, _ in runs],
        columns,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.16 / (n_rows - 1) if n_rows > 1 else 0,
    )
    for i, (facts, curves) in enumerate(runs):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        _panel(fig, curves, facts, where, overlays[i])
        title = "layer (block whose output is read or swapped)" if columns == 1 else "layer"
        layer_axes(fig, facts.n_layers, title, **where)
    fig.update_yaxes(range=[-0.02, 1.02], matches="y")
    for row in range(1, n_rows + 1):
        fig.update_yaxes(title_text="accuracy", row=row, col=1)
    counts = sorted({r["n"] for _, curves in runs for r in curves.slice(0, 1).to_pylist()})
    note = f"n = {', '.join(map(str, counts))} test images; bands: 95% intervals"
    top = 130 if any(facts.note for facts, _ in runs[:columns]) else 100  # notes are second lines
    title = f"Availability against use of the CLS token<br><sup>{note}</sup>"
    return finish(fig, title, 130 + top + 330 * n_rows, top)


def lens_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """Probe accuracy, lens accuracy and, on the right axis, lens identifiability by layer."""
    fig = make_subplots(specs=[[{"secondary_y": True}]])
    _look(fig, curves, "probe", {"secondary_y": False})
    _look(fig, curves, "lens", {"secondary_y": False})
    curve(
        fig, _select(curves, "lens", "identifiability"), "lens identifiability (right axis)", PURPLE, symbol="triangle-up",
        dash="dash", secondary_y=True,
    )  # fmt: skip
    layer_axes(fig, facts.n_layers)
    share_axis(fig, "accuracy", secondary_y=False)
    share_axis(fig, "identifiability (1 - rank / C)", secondary_y=True)
    fig.update_yaxes(showgrid=False, secondary_y=True)
    norm = {True: "with the final norm", False: "without the final norm", None: "no final norm in this family"}[
        facts.final_norm
    ]
    return finish(fig, f"Logit lens on the CLS token: {facts.model}<br><sup>{norm}</sup>", 560)


def restoration_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """Heatmap: accuracy of the probe at layer j (right) after CLS tokens were swapped at layer l (down)."""
    rows = _select(curves, "restoration")
    swapped = sorted({r["layer"] for r in rows})
    probed = sorted({r["probed_layer"] for r in rows})
    cell = {(r["layer"], r["probed_layer"]): r["value"] for r in rows}
    fig = go.Figure()
    z = [[cell.get((s, p)) for p in probed] for s in swapped]
    heat(fig, z, probed, swapped, title="accuracy", size=14, hover="swapped at %{y}, probed at %{x}")
    fig.update_xaxes(title_text="probed layer")
    fig.update_yaxes(title_text="layer of the swap")
    return finish(fig, f"Restoration: is the label back in the CLS token after a swap? {facts.model}", 620)


def donor_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """After a swap at layer l: how often the output names the image's own label, how often the donor's."""
    fig = go.Figure()
    _look(fig, curves, "shuffle", {}, "output names the image's label")
    _look(fig, curves, "donor", {})
    _floor(fig, curves, facts, {})
    layer_axes(fig, facts.n_layers, "layer of the swap")
    share_axis(fig, "share of images")
    return finish(fig, f"Whom the output follows after a CLS swap: {facts.model}", 560)


def cost_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """What a replacement costs, on the same images: accuracy lost, and the share of answers that change."""
    fig = panel_grid(["accuracy lost (intact minus replaced, same images)", "answers that are not the intact ones"])
    for kind, name, colour, symbol in (
        ("", "output", ORANGE, "square"),
        ("_cls_only", f"CLS-only output ({HELD.get(facts.cls_only or '', '')})", GREEN, "diamond"),
    ):
        curve(fig, _select(curves, f"cost{kind}"), name, colour, symbol=symbol, row=1, col=1)
        rows = _select(curves, f"agreement{kind}", "share")
        changed = [r | {"value": 1 - r["value"], "ci_low": 1 - r["ci_high"], "ci_high": 1 - r["ci_low"]} for r in rows]
        curve(fig, changed, name, colour, symbol=symbol, row=1, col=2)
    if facts.floors is not None:
        intact = _select(curves, "intact")[0]["value"]
        level(
            fig, intact - facts.floors["use"], _layers(curves), "all there is to lose: down to the floor", row=1, col=1
        )
    layer_axes(fig, facts.n_layers, "layer of the replacement")
    share_axis(fig, "share of images")
    fig.update_yaxes(title_text="accuracy", range=None, row=1, col=1)
    return finish(fig, f"What a replacement costs: {facts.model}", 560)


def study_figures(runs: Sequence[tuple[Facts, pa.Table]], published: bool = False) -> list[go.Figure]:
    """All figures of one or several runs: the note's panels, then costs, lens, donor (if any), restoration and what was
    measured beside the note, of each run.
    """
    figures = [note_figure(runs, published)]
    for facts, curves in runs:
        donors = [] if facts.mode in HOW else [donor_by_layer]
        figures += [draw(curves, facts) for draw in (cost_by_layer, lens_by_layer, *donors, restoration_by_layer)]
        figures += also_figures(curves, facts)
    return figures


def published_curves() -> dict[str, Any]:
    """The published result, with its source and how it was read off."""
    return json.loads(files("clsinterp").joinpath("figures/published_curves.json").read_text())


def _published(model: str) -> dict[str, Any] | None:
    data = published_curves()
    return next((data["curves"][key] for key, name in data["checkpoints"].items() if name == model), None)
