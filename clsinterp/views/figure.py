"""A lens view as one figure: maps and trajectories under a layer slider, in notebooks and as pages without a server."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from clsinterp.errors import RequestError
from clsinterp.views.drawing import add_map, cells, plain
from clsinterp.views.maps import OVERLAY, default_class, panels, shown
from clsinterp.views.reading import Reading
from clsinterp.views.trajectory import add_trajectory


def lens_figure(
    views: Sequence[Reading],
    quantity: str = "probability",
    *,
    class_index: int | str | None = None,
    head: int | None = None,
    layer: int | None = None,
    slider: bool = True,
) -> go.Figure:
    """Maps and trajectories under one layer slider; works in notebooks and, as HTML, without a server.

    Args:
        views: one view, or an intact and an intervened one.
        quantity, class_index, head: as in `clsinterp.views.maps.values`.
        layer: the layer shown first; default the last.
        slider: whether the others can be reached; a static image says in its title which layer it shows.

    Raises:
        RequestError: no such quantity, class, head or layer.
    """
    n = views[0].n_layers
    first = n - 1 if layer is None else layer
    if not 0 <= first < n:
        raise RequestError(f"layer {layer} was given; this model has layers 0 to {n - 1}.")
    found = panels(views, quantity, class_index, head)
    fig = go.Figure()
    top, bottom = ((0.0, 1.0), (0.0, 1.0)) if len(found) == 1 else ((0.6, 1.0), (0.0, 0.4))
    slots = 2 if len(found) == 1 else len(found)
    for i, panel in enumerate(found):
        add_map(fig, panel, first, i, (i / slots, (i + 1) / slots), top, True, OVERLAY)
    maps = list(range(len(fig.data)))
    chosen = default_class(views[0], class_index) if class_index is not None else None
    for i, view in enumerate(views):
        domain = (0.56, 1.0) if len(found) == 1 else (0.04 + 0.48 * i, 0.48 + 0.48 * i)
        add_trajectory(fig, view, views, i, 2 * len(found) + 1 + i, domain, bottom, first, chosen)
    lines = [f"shapes[{i}].x{end}" for i, s in enumerate(fig.layout.shapes) if s.name == "layer" for end in "01"]
    steps = []
    for at in range(n) if slider else ():
        data = [one for panel in found for one in cells(panel, at, top5=True)]
        restyle = {key: [one[key] for one in data] for key in ("z", "text", "customdata")}
        steps.append({"label": str(at), "method": "update", "args": [restyle, dict.fromkeys(lines, at), maps]})
    sliders = [{
        "active": first, "steps": steps, "currentvalue": {"prefix": "layer "}, "pad": {"t": 60}, "len": 0.96, "x": 0.02,
    }]  # fmt: skip
    under = 150 if slider else 50  # pixels; where there is one map, what the slider leaves makes it larger
    fig.update_layout(
        title={"text": _title(views, "" if slider else f", layer {first}"), "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        height=520 if len(found) == 1 else 630 + under, margin={"l": 30, "r": 20, "t": 100, "b": under}, hovermode="closest",
        sliders=sliders if slider else (),
        legend={"orientation": "v", "x": 1.01, "y": bottom[1], "yanchor": "top"},
    )  # fmt: skip
    fig = plain(fig)
    return fig.update_layout(paper_bgcolor="white")


def _title(views: Sequence[Reading], at: str) -> str:
    view = views[-1]
    done = f"; {view.intervention.describe()}" if view.intervention else ""
    borrowed = view.read_by.get("cls") == "patch_mean"
    patches = "; the head reads patches: on the CLS token the lens applies what reads patches" if borrowed else ""
    return (
        f"Logit lens: {shown(view.model, 60)}{at}<br><sup>output: {html.escape(view.answer(28))}{done}{patches}</sup>"
    )


def lens_widget(
    view: Reading,
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
