"""The figure of attention knock-outs, from a run's curves or the study's table, which name them alike."""

from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.facts import layer_said
from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import Row, curve, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

# curve -> (name in the legend, colour, symbol, dash); what is not in the table is not drawn.
LOOKS = {
    "probe": ("probe: label read from CLS", GREY, "circle-open", "dot"),
    "shuffle": ("CLS swapped at l", ORANGE, "square", "dot"),
    "knock_until": ("CLS reads nothing in blocks 0..l", BLUE, "circle", "solid"),
    "knock_from": ("CLS reads nothing from block l on", RED, "diamond", "solid"),
    "knock_at": ("CLS reads nothing in {window} blocks from l", PURPLE, "triangle-up", "solid"),
    "knock_until_registers": ("nothing but registers in blocks 0..l", BLUE, "circle-open", "dash"),
    "knock_from_registers": ("nothing but registers from block l on", RED, "diamond-open", "dash"),
    "knock_at_registers": ("nothing but registers in {window} blocks from l", PURPLE, "triangle-up-open", "dash"),
    "knock_patches_until": ("patches can't read CLS in blocks 0..l", GREEN, "x", "solid"),
    "mean_kv_until": ("CLS reads the mean image in blocks 0..l", BLUE, "star", "dot"),
    "mean_kv_patches_until": ("patches read the mean CLS in blocks 0..l", GREEN, "star-triangle-up", "dot"),
}


def half_said(row: Row) -> str:
    """The layer of a row of ``half_read_until`` or ``half_read_from``, in words."""
    return layer_said(row["value"], row["ci_low"], row["ci_high"])


def knock_figure(curves: pa.Table, model: str, n_layers: int, window: int) -> go.Figure:
    """Accuracy by layer under every knock-out, the share of answers that stay, and CLS-only accuracy where there is any.

    Args:
        curves: rows with ``curve, metric, layer`` and a point; curves as in `LOOKS`, with ``intact``, and metrics ``accuracy``
            and ``agreement``. Where ``half_read_until`` and ``half_read_from`` are there, the title says them.
        model: its name.
        n_layers: its blocks.
        window: blocks of ``knock_at``.
    """
    rows = [row for row in curves.to_pylist() if row.get("probed_layer") is None]
    panels = [("output: accuracy", "accuracy", ""), ("answers that are the intact ones", "agreement", "")]
    if any(row["curve"].endswith("_cls_only") for row in rows):
        panels.append(("CLS-only output: accuracy", "accuracy", "_cls_only"))
        panels.append(("CLS-only answers that are the intact ones", "agreement", "_cls_only"))
    intact = [row for row in rows if (row["curve"], row["metric"]) == ("intact", "accuracy")]
    fig = panel_grid([titled(title, intact) for title, _, _ in panels], columns=2, horizontal_spacing=0.1)
    for i, (_, metric, which) in enumerate(panels):
        where: dict[str, Any] = {"row": i // 2 + 1, "col": i % 2 + 1}
        for name, (said, colour, symbol, dash) in LOOKS.items():
            wanted = name if name == "probe" else f"{name}{which}"
            line = [r for r in rows if (r["curve"], r["metric"]) == (wanted, metric) and r["layer"] is not None]
            line = sorted((r for r in line if r["layer"] >= 0), key=lambda r: r["layer"])
            curve(fig, line, said.format(window=window), colour, symbol=symbol, dash=dash, **where)
        for row in rows:
            if (row["curve"], row["metric"]) == (f"intact{which}", metric):
                level(fig, row["value"], (-0.4, n_layers - 0.6), "intact", ORANGE, "dash", **where)
        layer_axes(fig, n_layers, "layer l", **where)
        share_axis(fig, "accuracy" if metric == "accuracy" else "share of images", **where)
    found = {(row["curve"], row["layer"]): row["value"] for row in rows if row["metric"] == "accuracy"}
    layers = sorted(layer for name, layer in found if name == "knock_until" and ("knock_from", layer) in found)
    title = f"{model}: what the CLS token reads, block by block"
    if layers:
        middle = layers[len(layers) // 2]
        title = (f"{model}: CLS tokens that read nothing up to block {middle} leave the output right in "
                 f"{found['knock_until', middle]:.2f}, from block {middle} on in {found['knock_from', middle]:.2f}, "
                 f"intact in {intact[0]['value']:.2f}")  # fmt: skip
    half = {row["curve"]: half_said(row) for row in rows if row["curve"] in ("half_read_until", "half_read_from")}
    if half:
        title += (f"; half of what never reading costs is lost without blocks 0 to {half['half_read_until']}, and without those "
                  f"from {half['half_read_from']} on")  # fmt: skip
    return finish(fig, title, shared="all")
