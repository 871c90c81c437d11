"""Heatmaps of patching sweeps and of attention over the image."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from clsinterp.figures.layout import finish
from clsinterp.figures.style import DIVERGING, SEQUENTIAL


def patching_figure(
    table: pa.Table, title: str, tokens: Sequence[str] | None = None, metric: str = "metric"
) -> go.Figure:
    """Heatmap of a patching sweep: layer (down) by token or head (right).

    Args:
        table: from `clsinterp.sweeps.patching`.
        title: what was patched and measured.
        tokens: names of the tokens, in order; default their numbers.
        metric: what the colours stand for.
    """
    rows = table.to_pylist()
    axis = "head" if rows[0]["token"] is None else "token"
    places, layers = sorted({r[axis] for r in rows}), sorted({r["layer"] for r in rows})
    cell = {(r["layer"], r[axis]): r["value"] for r in rows}
    names = [tokens[p] for p in places] if tokens and axis == "token" else [str(p) for p in places]
    top = max(abs(v) for v in cell.values()) or 1.0
    fig = go.Figure(
        go.Heatmap(
            x=names, y=layers, z=[[cell.get((layer, p)) for p in places] for layer in layers], xgap=1, ygap=1,
            colorscale=DIVERGING, zmid=0, zmin=-top, zmax=top, colorbar={"title": metric},
            hovertemplate=f"layer %{{y}}, {axis} %{{x}}: %{{z:.3f}}<extra></extra>",
        )
    )  # fmt: skip
    fig.update_xaxes(title_text=axis, type="category", showgrid=False)
    fig.update_yaxes(title_text="layer", dtick=1, autorange="reversed", showgrid=False)
    return finish(fig, title, 400, note=f"n = {rows[0]['n']} pairs")


def attention_figure(image: Any, maps: Any, names: Sequence[str], title: str) -> go.Figure:
    """Maps over patches beside the image they belong to, each on its own scale.

    Args:
        image: a PIL image.
        maps: (map, rows, columns), such as one image's `clsinterp.hooks.attention.cls_attention` of one layer, by head.
        names: one for each map.
        title: of the figure.
    """
    columns = min(5, len(names) + 1)
    n_rows = math.ceil((len(names) + 1) / columns)
    fig = make_subplots(rows=n_rows, cols=columns, subplot_titles=["image", *names], horizontal_spacing=0.02)
    fig.add_trace(go.Image(z=image.convert("RGB").resize((224, 224))), row=1, col=1)
    for i, values in enumerate(maps, start=1):
        heat = go.Heatmap(
            z=[[float(v) for v in row] for row in values][::-1], colorscale=SEQUENTIAL, showscale=False,
            hovertemplate="%{z:.4f}<extra></extra>",
        )  # fmt: skip
        fig.add_trace(heat, row=i // columns + 1, col=i % columns + 1)
    fig.update_xaxes(visible=False, constrain="domain")
    fig.update_yaxes(visible=False, constrain="domain")
    for i in range(len(names) + 1):  # square patches, as in the image
        fig.update_yaxes(scaleanchor="x" if i == 0 else f"x{i + 1}", row=i // columns + 1, col=i % columns + 1)
    return finish(fig, title, 230)
