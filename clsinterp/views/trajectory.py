"""What the CLS token is read as, layer by layer."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from clsinterp.figures.style import BLUE, ORANGE, SYMBOLS
from clsinterp.views.drawing import FULL, Domain, axis_name, plain
from clsinterp.views.maps import shown
from clsinterp.views.reading import Reading

# Of middling luminance: the explorer draws them on white and on its dark page, at three to one or more with both.
LINES = ("#2a58ff", "#d80107", "#1aa1c7", "#99557f", "#617258", "#a78d8f")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def trajectory_classes(views: Sequence[Reading], class_index: int | None = None, most: int = 6) -> list[int]:
    """The classes a trajectory draws: the chosen one, the outputs' first three, then those that peak highest."""
    first = [] if class_index is None else [class_index]
    first += [c for view in views for c in view.output.topk(min(3, len(view.output))).indices.tolist()]
    peaks = max((v.trajectory().max(0).values for v in views), key=lambda p: float(p.max()))
    return list(dict.fromkeys([*first, *peaks.argsort(descending=True).tolist()]))[:most]


def trajectory_figure(views: Sequence[Reading], layer: int, class_index: int | None = None) -> go.Figure:
    """Probability of the top classes on the CLS token, layer by layer; intact and intervened side by side."""
    fig = go.Figure()
    for i, view in enumerate(views):
        width = 1 / len(views)
        domain = (i * (width + 0.02), (i + 1) * width - (0.02 if i < len(views) - 1 else 0))
        add_trajectory(fig, view, views, i, i + 1, domain, FULL, layer, class_index)
    fig.update_layout(margin={"l": 52, "r": 8, "t": 30, "b": 42}, hovermode="closest", dragmode=False)
    fig.update_layout(legend={"font": {"size": 11}, "tracegroupgap": 0, "x": 1.01, "y": 1, "yanchor": "top"})
    return plain(fig)


def add_trajectory(
    fig: go.Figure,
    view: Reading,
    views: Sequence[Reading],
    i: int,
    axis: int,
    x: Domain,
    y: Domain,
    layer: int,
    class_index: int | None,
) -> None:
    """Add one view's lines, on the axes of that number; `i` is its place among the views."""
    probability = view.trajectory()
    x_axis, y_axis = axis_name("x", axis), axis_name("y", axis)
    for k, c in enumerate(trajectory_classes(views, class_index)):
        name = shown(view.class_names[c], 22)
        fig.add_scatter(
            x=list(range(view.n_layers)), y=probability[:, c].tolist(), name=name, legendgroup=name, showlegend=i == 0,
            mode="lines+markers", line={"color": LINES[k % 6], "dash": DASHES[k % 6], "width": 2},
            marker={"symbol": SYMBOLS[k % 6], "size": 6}, xaxis=x_axis, yaxis=y_axis,
            hovertemplate=f"{name}, layer %{{x}}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    token = "CLS token" if "cls" in view.groups else "mean of patches"
    what = ("intact", "intervened")[i] if len(views) > 1 else ("intact" if view.intervention is None else "intervened")
    fig.update_layout(
        {
            axis_name("xaxis", axis): {
                "domain": x, "range": [-0.4, view.n_layers - 0.6], "anchor": y_axis, "zeroline": False, "fixedrange": True,
                "title": {"text": "layer", "standoff": 4, "font": {"size": 12}}, "tickangle": 0,
                "dtick": math.ceil(view.n_layers * len(views) / 16),
            },
            axis_name("yaxis", axis): {
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
            line | {"x0": done.layer, "x1": done.layer, "line": {"color": ORANGE, "width": 1.5, "dash": "dot"}}
        )
