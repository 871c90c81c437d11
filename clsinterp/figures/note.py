"""The figures of the note's runs: each function takes curves and returns a `Figure`."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.errors import RequestError
from clsinterp.figures.also import also_figures
from clsinterp.figures.facts import Facts
from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import Row, curve, heat, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import BLUE, GREEN, ORANGE, PURPLE, RED

# curve -> (name in the legend, colour, symbol). Symbols and dashes tell the curves apart in grey.
CURVE_LOOKS = {
    "probe": ("probe: label read from CLS", BLUE, "circle"),
    "shuffle": ("output, CLS swapped at layer", ORANGE, "square"),
    "shuffle_cls_only": ("CLS-only output, CLS swapped", GREEN, "diamond"),
    "donor": ("output names the donor's label", RED, "x"),
    "lens": ("lens accuracy", ORANGE, "square"),
}
# Name, colour, width: the first is seen where the second covers it.
FLAT = {"intact": ("output, intact", ORANGE, 2.5), "intact_cls_only": ("CLS-only output, intact", GREEN, 1.2)}
PUBLISHED = {"probe": "published probe", "shuffle": "published output, CLS swapped",
             "shuffle_cls_only": "published CLS-only output, CLS swapped"}  # fmt: skip
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
    name = name.replace("CLS swapped", _what(facts))
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
    for kind, (_, colour, width) in FLAT.items():
        for row in _select(curves, kind):
            level(fig, row["value"], _layers(curves), _named(kind, facts), colour, "dash", width, **where)
    _floor(fig, curves, facts, where)
    for kind in ("probe", "shuffle", "shuffle_cls_only"):
        _look(fig, curves, kind, where, _named(kind, facts))
    for kind, values in (published or {}).items():
        if kind in PUBLISHED:
            fig.add_scatter(
                x=list(range(len(values))), y=values, name=PUBLISHED[kind], mode="markers",
                marker={"symbol": "circle-open", "size": 11, "color": CURVE_LOOKS[kind][1], "line": {"width": 2}},
                hovertemplate="published, layer %{x}: %{y:.3f}", **where,
            )  # fmt: skip


def _what(facts: Facts) -> str:
    """What was done to which tokens: ``CLS swapped``."""
    tokens = {"cls": "CLS", "cls+distill": "CLS and distillation"}.get(facts.group, facts.group)
    return f"{tokens} {HOW.get(facts.mode, 'swapped')}"


def _at(curves: pa.Table, kind: str, metric: str = "accuracy") -> dict[int, float]:
    """Layer -> value of a curve, from layer 0 on; at the embeddings where they alone were asked for."""
    found = {r["layer"]: r["value"] for r in _select(curves, kind, metric) if r["layer"] is not None}
    return {layer: value for layer, value in found.items() if layer >= 0} or found


def _between(values: Sequence[float]) -> str:
    """``0.69``, or ``0.59 to 0.70`` of several."""
    return " to ".join(dict.fromkeys(f"{v:.2f}" for v in (min(values), max(values))))


def _found(runs: Sequence[tuple[Facts, pa.Table]]) -> str:
    """Both curves at the first and the last layer, in a sentence."""
    read, used = ([_at(curves, kind) for _, curves in runs] for kind in ("probe", "shuffle"))
    who = runs[0][0].model if len(runs) == 1 else f"{len(runs)} models"
    first, last = (" or ".join(str(i) for i in sorted({end(one) for one in used})) for end in (min, max))
    (what,) = (
        {_what(facts) for facts, _ in runs} if len({_what(facts) for facts, _ in runs}) == 1 else {"tokens replaced"}
    )
    early, late = (_between([one[end(one)] for one in used]) for end in (min, max))
    begin = f"{who}: at layer {first} a probe reads the label from {_between([one[min(one)] for one in read])} of CLS tokens"
    return f"{begin}; with {what} there the output is right in {early}, at layer {last} in {late}"


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
        [_panel_title(facts, curves, not _alike(runs)) for facts, curves in runs],
        columns,
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for i, (facts, curves) in enumerate(runs):
        where = {"row": i // columns + 1, "col": i % columns + 1}
        facts = facts if _alike(runs) else replace(facts, cls_only=None)
        _panel(fig, curves, facts, where, overlays[i])
        title = "layer (block whose output is read or swapped)" if columns == 1 else "layer"
        layer_axes(fig, facts.n_layers, title, **where)
    fig.update_yaxes(range=[-0.02, 1.02], matches="y")
    for row in range(1, n_rows + 1):
        fig.update_yaxes(title_text="accuracy", row=row, col=1)
    return finish(fig, _found(runs), note="bands: 95% intervals over images", shared="all")


def _alike(runs: Sequence[tuple[Facts, pa.Table]]) -> bool:
    """Whether other read-outs were held in the same way in all runs: then the legend says it, else each panel."""
    return len({facts.cls_only for facts, _ in runs} - {None}) <= 1


def _panel_title(facts: Facts, curves: pa.Table, held: bool) -> str:
    title = titled(facts.model, _select(curves, "intact"), "test images")
    for also in (facts.note, f"CLS-only: {HELD[facts.cls_only]}" if held and facts.cls_only else None):
        title = title.replace("</sup>", f"; {also}</sup>") if also else title
    return title


def lens_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """Two panels: probe and lens accuracy by layer; the lens's identifiability."""
    rows = _select(curves, "lens")
    fig = panel_grid(
        [titled(t, rows) for t in ("accuracy", "lens identifiability (1 - rank / C)")], horizontal_spacing=0.08
    )
    _look(fig, curves, "probe", {"row": 1, "col": 1})
    _look(fig, curves, "lens", {"row": 1, "col": 1})
    curve(
        fig,
        _select(curves, "lens", "identifiability"),
        "lens identifiability",
        PURPLE,
        symbol="triangle-up",
        row=1,
        col=2,
    )
    for col, name in ((1, "accuracy"), (2, "identifiability")):
        layer_axes(fig, facts.n_layers, row=1, col=col)
        share_axis(fig, name, row=1, col=col)
    norm = {True: "with the final norm", False: "without the final norm", None: "no final norm in this family"}[
        facts.final_norm
    ]
    lens, probe = _at(curves, "lens"), _at(curves, "probe")
    first, last = min(lens), max(lens)
    title = (f"{facts.model}: the lens names the label of {lens[first]:.2f} of CLS tokens at layer {first} and {lens[last]:.2f} "
             f"at layer {last}, a probe reads {probe[first]:.2f} and {probe[last]:.2f}")  # fmt: skip
    return finish(fig, title, note=f"lens {norm}", shared="all")


def restoration_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """Heatmap: accuracy of the probe at layer j (right) after CLS tokens were swapped at layer l (down)."""
    rows = _select(curves, "restoration")
    swapped = sorted({r["layer"] for r in rows})
    probed = sorted({r["probed_layer"] for r in rows})
    cell = {(r["layer"], r["probed_layer"]): r["value"] for r in rows}
    what = _what(facts)
    fig = panel_grid([titled(f"probe at layer j, {what} at layer l", rows)])
    z = [[cell.get((s, p)) for p in probed] for s in swapped]
    heat(fig, z, probed, swapped, title="accuracy", size=13, hover="replaced at %{y}, probed at %{x}", row=1, col=1)
    fig.update_xaxes(title_text="probed layer j")
    fig.update_yaxes(title_text="layer l of the replacement")
    last, middle = probed[-1], swapped[len(swapped) // 2]
    intact = _at(curves, "probe")[last]
    title = (f"{facts.model}: with {what} at layer {middle}, the probe of layer {last} reads {cell[middle, last]:.2f} of labels, "
             f"of intact tokens {intact:.2f}")  # fmt: skip
    return finish(fig, title, 420)


def donor_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """After a swap at layer l: how often the output names the image's own label, how often the donor's."""
    fig = panel_grid([titled("whose label the output names", _select(curves, "donor"))])
    _look(fig, curves, "shuffle", {"row": 1, "col": 1}, "output names the image's label")
    _look(fig, curves, "donor", {"row": 1, "col": 1})
    _floor(fig, curves, facts, {"row": 1, "col": 1})
    layer_axes(fig, facts.n_layers, "layer of the swap")
    share_axis(fig, "share of images")
    own, other = _at(curves, "shuffle"), _at(curves, "donor")
    last = max(other)
    title = (f"{facts.model}: after a swap at layer {last} the output names the donor's label in {other[last]:.2f} of images, "
             f"their own in {own[last]:.2f}")  # fmt: skip
    return finish(fig, title, shared="all")


def cost_by_layer(curves: pa.Table, facts: Facts) -> go.Figure:
    """What a replacement costs, on the same images: accuracy lost, and the share of answers that change."""
    rows = _select(curves, "cost")
    titles = ["accuracy lost (intact minus replaced, same images)", "answers that are not the intact ones"]
    fig = panel_grid([titled(title, rows) for title in titles], horizontal_spacing=0.08)
    for kind, name, colour, symbol in (
        ("", "output", ORANGE, "square"),
        ("_cls_only", f"CLS-only output ({HELD.get(facts.cls_only or '', '')})", GREEN, "diamond"),
    ):
        curve(fig, _select(curves, f"cost{kind}"), name, colour, symbol=symbol, row=1, col=1)
        kept = _select(curves, f"agreement{kind}", "share")
        changed = [r | {"value": 1 - r["value"], "ci_low": 1 - r["ci_high"], "ci_high": 1 - r["ci_low"]} for r in kept]
        curve(fig, changed, name, colour, symbol=symbol, row=1, col=2)
    if facts.floors is not None:
        intact = _select(curves, "intact")[0]["value"]
        name = "all there is to lose: down to the floor"
        level(fig, intact - facts.floors["use"], _layers(curves), name, row=1, col=1)
    for col in (1, 2):
        layer_axes(fig, facts.n_layers, "layer of the replacement", row=1, col=col)
    share_axis(fig, "share of images", row=1, col=2)
    fig.update_yaxes(title_text="accuracy", row=1, col=1)
    lost, same = _at(curves, "cost"), _at(curves, "agreement", "share")
    most = max(lost, key=lambda layer: lost[layer])
    title = (f"{facts.model}: {_what(facts)} costs most at layer {most}, {lost[most]:.2f} of accuracy"
             + (f"; {1 - same[most]:.2f} of answers change there" if most in same else ""))  # fmt: skip
    return finish(fig, title, shared="all")


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
