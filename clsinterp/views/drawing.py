"""Lens maps as plotly traces: the patch grid over the image, and the prefix tokens beside it."""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import plotly.graph_objects as go
from PIL import Image

from clsinterp.views.maps import GREYS, OVERLAY, Panel, shown
from clsinterp.views.reading import Reading

Domain = tuple[float, float]
FULL: Domain = (0.0, 1.0)
PICTURE = 336  # pixels of the longer side of the picture under a map


def cells(panel: Panel, layer: int, top5: bool = False) -> list[dict[str, Any]]:
    """What the heatmap traces of `panel` show at `layer`: the patches, then the prefix tokens if there are any.

    ``customdata`` is (token number, token name, label, top-5 lines or nothing) for each cell.
    """
    view, n = panel.view, panel.view.n_prefix
    z = panel.z[layer].tolist()
    marks = panel.marks[layer] if panel.marks else [""] * len(z)
    detail = _top5(view, layer) if top5 else [""] * len(z)
    data = [[i, view.tokens[i], panel.labels[layer][i], detail[i]] for i in range(len(z))]
    grids = [(list(range(n, len(z))), view.grid[1])] + ([(list(range(n)), 1)] if n else [])
    return [
        {
            key: [[source[i] for i in places[start : start + width]] for start in range(0, len(places), width)]
            for key, source in (("z", z), ("text", marks), ("customdata", data))
        }
        for places, width in grids
    ]


def _top5(view: Reading, layer: int) -> list[str]:
    probability, index = view.top(5)
    return [
        "".join(f"<br>{shown(view.class_names[c])}  {100 * p:.1f}%" for p, c in zip(*pair, strict=True))
        for pair in zip(probability[layer].tolist(), index[layer].tolist(), strict=True)
    ]


def picture(image: Image.Image) -> str:
    """`image` as a data address: in pale grey, so that colour and darkness are left to the quantity over it, and
    enlarged without smoothing, so that pixels stay pixels."""
    factor = max(1, PICTURE // max(image.size))
    dark, pale = GREYS
    grey = image.convert("L").point(lambda x: dark + x * (pale - dark) // 255)
    buffer = BytesIO()
    grey.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def maps_figure(
    found: Sequence[Panel], layer: int, *, slots: int = 3, top5: bool = False, overlay: float = OVERLAY
) -> go.Figure:
    """`found` side by side, each in one of `slots` equal places: prefix tokens, then the patch grid over the image.

    Args:
        found: from `clsinterp.views.maps.panels`.
        layer: the layer shown.
        slots: places across the figure.
        top5: whether hovering also lists the five most probable classes.
        overlay: opacity of the colours over the image.
    """
    fig = go.Figure()
    for i, panel in enumerate(found):
        add_map(fig, panel, layer, i, (i / slots, (i + 1) / slots), FULL, top5, overlay)
    # Without autoexpand, so that a long name on a colour bar does not make the map smaller.
    margin = {"l": 8, "r": 8, "t": 34, "b": 8, "autoexpand": False}
    fig.update_layout(margin=margin, hovermode="closest", dragmode=False)
    return plain(fig)


def add_map(fig: go.Figure, panel: Panel, layer: int, i: int, x: Domain, y: Domain, top5: bool, overlay: float) -> None:
    """Add one panel: axes 2i+1 for the patches, 2i+2 for the prefix tokens."""
    view, width = panel.view, x[1] - x[0]
    rows, columns = view.grid
    n = view.n_prefix
    patch_x = (x[0] + (0.225 if n else 0.03) * width, x[0] + 0.82 * width)
    ticks = {} if panel.scale.ticks is None else {"tickvals": panel.scale.ticks[0], "ticktext": panel.scale.ticks[1]}
    bar = {
        "x": patch_x[1] + 0.012 * width, "xanchor": "left", "y": (y[0] + y[1]) / 2, "len": (y[1] - y[0]) * 0.98,
        "thickness": 9, "outlinewidth": 0, "tickfont": {"size": 10}, **ticks,
        "title": {"text": panel.scale.beside, "side": "right", "font": {"size": 10}},
    }  # fmt: skip
    shared = {
        "colorscale": panel.scale.colours, "zmin": panel.scale.low, "zmax": panel.scale.high, "xgap": 1, "ygap": 1,
        "texttemplate": "%{text}", "textfont": {"size": 11},
        "hovertemplate": "%{customdata[1]}: %{customdata[2]}%{customdata[3]}<extra></extra>",
    }  # fmt: skip
    shown_cells = cells(panel, layer, top5)
    fig.add_trace(
        go.Heatmap(
            **shown_cells[0],
            **shared,
            x=list(range(columns)),
            y=list(range(rows)),
            name=panel.title,
            opacity=overlay,
            colorbar=bar,
            xaxis=axis_name("x", 2 * i + 1),
            yaxis=axis_name("y", 2 * i + 1),
        )
    )
    outer = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    fig.update_layout(
        {
            axis_name("xaxis", 2 * i + 1): {
                **outer, "domain": patch_x, "range": [-0.5, columns - 0.5], "showticklabels": False,
                "anchor": axis_name("y", 2 * i + 1), "constrain": "domain", "constraintoward": "left",
            },
            axis_name("yaxis", 2 * i + 1): {
                **outer, "domain": y, "range": [rows - 0.5, -0.5], "showticklabels": False,
                "anchor": axis_name("x", 2 * i + 1), "scaleanchor": axis_name("x", 2 * i + 1), "constrain": "domain",
                "constraintoward": "top",
            },
        }
    )  # fmt: skip
    fig.add_layout_image(
        source=picture(view.image), xref=axis_name("x", 2 * i + 1), yref=axis_name("y", 2 * i + 1), x=-0.5, y=-0.5,
        sizex=columns, sizey=rows, sizing="stretch", layer="below",
    )  # fmt: skip
    fig.add_annotation(
        text=f"<b>{panel.title}</b>  {panel.scale.title}", x=x[0] + 0.02 * width, y=y[1], xref="paper", yref="paper",
        yshift=24, xanchor="left", yanchor="top", showarrow=False, font={"size": 12},
    )  # fmt: skip
    if n:
        _add_prefix(fig, panel, shown_cells[1], shared, i, (x[0] + 0.135 * width, x[0] + 0.2 * width), y)


def _add_prefix(
    fig: go.Figure, panel: Panel, data: dict[str, Any], shared: dict[str, Any], i: int, x: Domain, y: Domain
) -> None:
    """The prefix tokens as cells of their own, as tall as the patches are."""
    view, n = panel.view, panel.view.n_prefix
    fig.add_trace(
        go.Heatmap(
            **data,
            **shared,
            x=[0],
            y=list(range(n)),
            name=f"{panel.title}, prefix tokens",
            showscale=False,
            xaxis=axis_name("x", 2 * i + 2),
            yaxis=axis_name("y", 2 * i + 2),
        )
    )
    outer = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    height = max(view.grid[0], n, 6)  # a coarse grid would otherwise make giants of them
    fig.update_layout(
        {
            axis_name("xaxis", 2 * i + 2): {
                **outer, "domain": x, "range": [-0.5, 0.5], "showticklabels": False, "anchor": axis_name("y", 2 * i + 2),
            },
            axis_name("yaxis", 2 * i + 2): {
                **outer, "domain": y, "range": [height - 0.5, -0.5], "tickvals": list(range(n)),
                "ticktext": list(view.tokens[:n]), "tickfont": {"size": 11}, "anchor": axis_name("x", 2 * i + 2),
            },
        }
    )  # fmt: skip


def axis_name(name: str, number: int) -> str:
    """plotly's name for the axis with that number: ``x``, ``x2``, .."""
    return name if number == 1 else f"{name}{number}"


def plain(fig: go.Figure) -> go.Figure:
    """The look that all lens figures share; the background is whatever is behind."""
    fig.update_layout(
        template="plotly_white", font={"size": 12}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)"
    )
    return fig
