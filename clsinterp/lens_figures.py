"""Plotly figures of lens views: maps over the image, the CLS token's trajectory, and both under one layer slider."""

import base64
import math
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import plotly.graph_objects as go
from PIL import Image

from clsinterp.errors import RequestError
from clsinterp.figures import BLUE
from clsinterp.lens_maps import CLASS_COLOURS, Panel, default_class, panels, shown
from clsinterp.lens_view import LensView

Domain = tuple[float, float]
FULL: Domain = (0.0, 1.0)
LINES = (*CLASS_COLOURS[:3], *CLASS_COLOURS[4:8])  # without yellow, which is faint as a line
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
PALEST_BLACK = 90
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


def _top5(view: LensView, layer: int) -> list[str]:
    probability, index = view.top(5)
    return [
        "".join(f"<br>{shown(view.class_names[c])}  {100 * p:.1f}%" for p, c in zip(*pair, strict=True))
        for pair in zip(probability[layer].tolist(), index[layer].tolist(), strict=True)
    ]


def picture(image: Image.Image) -> str:
    """`image` as a data address: in pale grey, so that colour and darkness are left to the quantity over it, and
    enlarged without smoothing, so that pixels stay pixels."""
    factor = max(1, PICTURE // max(image.size))
    grey = image.convert("L").point(lambda x: PALEST_BLACK + x * (255 - PALEST_BLACK) // 255)
    buffer = BytesIO()
    grey.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def maps_figure(
    found: Sequence[Panel], layer: int, *, slots: int = 3, top5: bool = False, overlay: float = 0.75
) -> go.Figure:
    """`found` side by side, each in one of `slots` equal places: prefix tokens, then the patch grid over the image.

    Args:
        found: from `clsinterp.lens_maps.panels`.
        layer: the layer shown.
        slots: places across the figure.
        top5: whether hovering also lists the five most probable classes.
        overlay: opacity of the colours over the image.
    """
    fig = go.Figure()
    for i, panel in enumerate(found):
        _add_map(fig, panel, layer, i, (i / slots, (i + 1) / slots), FULL, top5, overlay)
    fig.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 8}, hovermode="closest", dragmode=False)
    return _plain(fig)


def _add_map(
    fig: go.Figure, panel: Panel, layer: int, i: int, x: Domain, y: Domain, top5: bool, overlay: float
) -> None:
    """One panel: axes 2i+1 for the patches, 2i+2 for the prefix tokens."""
    view, width = panel.view, x[1] - x[0]
    rows, columns = view.grid
    n = view.n_prefix
    patch_x = (x[0] + (0.225 if n else 0.03) * width, x[0] + 0.82 * width)
    ticks = {} if panel.scale.ticks is None else {"tickvals": panel.scale.ticks[0], "ticktext": panel.scale.ticks[1]}
    bar = {
        "x": patch_x[1] + 0.012 * width, "xanchor": "left", "y": (y[0] + y[1]) / 2, "len": (y[1] - y[0]) * 0.98,
        "thickness": 9, "outlinewidth": 0, "tickfont": {"size": 10}, **ticks,
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
            xaxis=_axis("x", 2 * i + 1),
            yaxis=_axis("y", 2 * i + 1),
        )
    )
    outer = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    fig.update_layout(
        {
            _axis("xaxis", 2 * i + 1): {
                **outer, "domain": patch_x, "range": [-0.5, columns - 0.5], "showticklabels": False,
                "anchor": _axis("y", 2 * i + 1), "constrain": "domain", "constraintoward": "left",
            },
            _axis("yaxis", 2 * i + 1): {
                **outer, "domain": y, "range": [rows - 0.5, -0.5], "showticklabels": False,
                "anchor": _axis("x", 2 * i + 1), "scaleanchor": _axis("x", 2 * i + 1), "constrain": "domain",
                "constraintoward": "top",
            },
        }
    )  # fmt: skip
    fig.add_layout_image(
        source=picture(view.image), xref=_axis("x", 2 * i + 1), yref=_axis("y", 2 * i + 1), x=-0.5, y=-0.5,
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
            xaxis=_axis("x", 2 * i + 2),
            yaxis=_axis("y", 2 * i + 2),
        )
    )
    outer = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    height = max(view.grid[0], n, 6)  # a coarse grid would otherwise make giants of them
    fig.update_layout(
        {
            _axis("xaxis", 2 * i + 2): {
                **outer, "domain": x, "range": [-0.5, 0.5], "showticklabels": False, "anchor": _axis("y", 2 * i + 2),
            },
            _axis("yaxis", 2 * i + 2): {
                **outer, "domain": y, "range": [height - 0.5, -0.5], "tickvals": list(range(n)),
                "ticktext": list(view.tokens[:n]), "tickfont": {"size": 11}, "anchor": _axis("x", 2 * i + 2),
            },
        }
    )  # fmt: skip


def _axis(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"


def trajectory_classes(views: Sequence[LensView], class_index: int | None = None, most: int = 6) -> list[int]:
    """The classes a trajectory draws: the chosen one, the outputs' first three, then those that peak highest."""
    first = [] if class_index is None else [class_index]
    first += [c for view in views for c in view.output.topk(min(3, len(view.output))).indices.tolist()]
    peaks = max((v.trajectory().max(0).values for v in views), key=lambda p: float(p.max()))
    return list(dict.fromkeys([*first, *peaks.argsort(descending=True).tolist()]))[:most]


def trajectory_figure(views: Sequence[LensView], layer: int, class_index: int | None = None) -> go.Figure:
    """Probability of the top classes on the CLS token, layer by layer; intact and intervened side by side."""
    fig = go.Figure()
    for i, view in enumerate(views):
        width = 1 / len(views)
        domain = (i * (width + 0.02), (i + 1) * width - (0.02 if i < len(views) - 1 else 0))
        _add_trajectory(fig, view, views, i, i + 1, domain, FULL, layer, class_index)
    fig.update_layout(margin={"l": 52, "r": 8, "t": 30, "b": 42}, hovermode="closest", dragmode=False)
    fig.update_layout(legend={"font": {"size": 11}, "tracegroupgap": 0, "x": 1.01, "y": 1, "yanchor": "top"})
    return _plain(fig)


def _add_trajectory(
    fig: go.Figure,
    view: LensView,
    views: Sequence[LensView],
    i: int,
    axis: int,
    x: Domain,
    y: Domain,
    layer: int,
    class_index: int | None,
) -> None:
    probability = view.trajectory()
    x_axis, y_axis = _axis("x", axis), _axis("y", axis)
    for k, c in enumerate(trajectory_classes(views, class_index)):
        name = shown(view.class_names[c], 22)
        fig.add_scatter(
            x=list(range(view.n_layers)), y=probability[:, c].tolist(), name=name, legendgroup=name, showlegend=i == 0,
            mode="lines+markers", line={"color": LINES[k % 7], "dash": DASHES[k % 7], "width": 2},
            marker={"symbol": SYMBOLS[k % 7], "size": 6}, xaxis=x_axis, yaxis=y_axis,
            hovertemplate=f"{name}, layer %{{x}}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    token = "CLS token" if "cls" in view.groups else "mean of patches"
    what = ("intact", "intervened")[i] if len(views) > 1 else ("intact" if view.intervention is None else "intervened")
    fig.update_layout(
        {
            _axis("xaxis", axis): {
                "domain": x, "range": [-0.4, view.n_layers - 0.6], "anchor": y_axis, "zeroline": False, "fixedrange": True,
                "title": {"text": "layer", "standoff": 4, "font": {"size": 12}}, "tickangle": 0,
                "dtick": math.ceil(view.n_layers * len(views) / 16),
            },
            _axis("yaxis", axis): {
                "domain": y, "range": [-0.03, 1.03], "anchor": x_axis, "zeroline": False, "fixedrange": True,
                "title": {"text": f"probability, {token}" if i == 0 else "", "standoff": 6, "font": {"size": 12}},
                "showticklabels": i == 0, "tickformat": ".1f",
            },
        }
    )  # fmt: skip
    fig.add_annotation(
        text=f"<b>{what}</b>", x=x[0], y=y[1], xref="paper", yref="paper", yshift=22,
        xanchor="left", yanchor="top", showarrow=False, font={"size": 12},
    )  # fmt: skip
    line = {"type": "line", "y0": 0, "y1": 1, "xref": x_axis, "yref": f"{y_axis} domain", "layer": "below"}
    fig.add_shape(line | {"x0": layer, "x1": layer, "line": {"color": BLUE, "width": 2}, "name": "layer"})
    done = view.intervention
    if done is not None and done.replace is not None:
        fig.add_shape(
            line | {"x0": done.layer, "x1": done.layer, "line": {"color": "#D55E00", "width": 1.5, "dash": "dot"}}
        )


def _plain(fig: go.Figure) -> go.Figure:
    fig.update_layout(
        template="plotly_white", font={"size": 12}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)"
    )
    return fig


def lens_figure(
    views: Sequence[LensView],
    quantity: str = "probability",
    *,
    class_index: int | None = None,
    head: int | None = None,
    layer: int | None = None,
) -> go.Figure:
    """Maps and trajectories under one layer slider; works in notebooks and, as HTML, without a server.

    Args:
        views: one view, or an intact and an intervened one.
        quantity, class_index, head: as in `clsinterp.lens_maps.values`.
        layer: the layer shown first; default the last.

    Raises:
        RequestError: no such quantity, class, head or layer.
    """
    n = views[0].n_layers
    first = n - 1 if layer is None else layer
    if not 0 <= first < n:
        raise RequestError(f"layer {layer} was given; this model has layers 0 to {n - 1}.")
    found = panels(views, quantity, class_index, head)
    fig = go.Figure()
    top, bottom = ((0.0, 1.0), (0.0, 1.0)) if len(found) == 1 else ((0.54, 1.0), (0.0, 0.36))
    slots = 2 if len(found) == 1 else len(found)
    for i, panel in enumerate(found):
        _add_map(fig, panel, first, i, (i / slots, (i + 1) / slots), top, True, 0.75)
    maps = list(range(len(fig.data)))
    chosen = default_class(views[0], class_index) if class_index is not None else None
    for i, view in enumerate(views):
        domain = (0.56, 1.0) if len(found) == 1 else (0.04 + 0.48 * i, 0.48 + 0.48 * i)
        _add_trajectory(fig, view, views, i, 2 * len(found) + 1 + i, domain, bottom, first, chosen)
    lines = [f"shapes[{i}].x{end}" for i, s in enumerate(fig.layout.shapes) if s.name == "layer" for end in "01"]
    steps = []
    for at in range(n):
        data = [one for panel in found for one in cells(panel, at, top5=True)]
        restyle = {key: [one[key] for one in data] for key in ("z", "text", "customdata")}
        steps.append({"label": str(at), "method": "update", "args": [restyle, dict.fromkeys(lines, at), maps]})
    fig.update_layout(
        title={"text": _title(views), "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        height=520 if len(found) == 1 else 780, margin={"l": 30, "r": 20, "t": 100, "b": 150}, hovermode="closest",
        sliders=[{
            "active": first, "steps": steps, "currentvalue": {"prefix": "layer "}, "pad": {"t": 60}, "len": 0.96,
            "x": 0.02,
        }],
        legend={"orientation": "v", "x": 1.01, "y": bottom[1], "yanchor": "top"},
    )  # fmt: skip
    fig = _plain(fig)
    return fig.update_layout(paper_bgcolor="white")


def _title(views: Sequence[LensView]) -> str:
    view = views[-1]
    output = ", ".join(
        f"{shown(view.class_names[c])} {100 * p:.1f}%"
        for p, c in zip(*(x.tolist() for x in view.output.softmax(-1).topk(min(3, len(view.output)))), strict=True)
    )
    done = f"; {view.intervention.describe()}" if view.intervention else ""
    return f"Logit lens: {shown(view.model, 60)}<br><sup>output: {output}{done}</sup>"


def lens_widget(
    view: LensView,
    quantity: str = "probability",
    *,
    on_hover: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Any:
    """`lens_figure` of one view as a ``FigureWidget`` whose hover reaches Python.

    Args:
        view, quantity, **options: as in `lens_figure`.
        on_hover: called with the token under the pointer: ``token`` (its number), ``name``, ``label`` (as shown).

    Raises:
        RequestError: anywidget is not installed.
    """
    try:
        widget = go.FigureWidget(lens_figure([view], quantity, **options))
    except ImportError as error:
        raise RequestError(
            "a FigureWidget needs anywidget; install clsinterp[explore], or use view.figure()."
        ) from error

    def hovered(trace: Any, points: Any, state: Any) -> None:
        for row, column in points.point_inds:
            token, name, label, _ = trace.customdata[row][column]
            if on_hover is not None:
                on_hover({"token": int(token), "name": str(name), "label": str(label)})

    for trace in widget.data:
        if trace.type == "heatmap":
            trace.on_hover(hovered)
    return widget
