"""A lens view as small maps, all layers at once: for paper, which has no slider."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from clsinterp.views.drawing import axis_name, cells, gaps, picture, plain
from clsinterp.views.maps import OVERLAY, panels
from clsinterp.views.reading import Reading

COLUMNS = 6
SIDE = 170  # pixels of a map and its title


def grid_figure(
    views: Sequence[Reading],
    quantity: str = "probability",
    *,
    class_index: int | str | None = None,
    head: int | None = None,
) -> go.Figure:
    """One map of the patches for each layer, on one colour scale; what the first prefix token shows stands above each.

    Args:
        views: one view; or an intact and an intervened one, of which the difference is drawn.
        quantity, class_index, head: as in `clsinterp.views.maps.values`.

    Raises:
        RequestError: no such quantity, class or head.
    """
    panel = panels(views, quantity, class_index, head)[-1]
    view, (rows, columns) = panel.view, panel.view.grid
    across = min(COLUMNS, view.n_layers)
    down = math.ceil(view.n_layers / across)
    fig = go.Figure()
    for layer in range(view.n_layers):
        row, column = divmod(layer, across)
        x0, y1 = column / across * 0.9, 1 - row / down
        ticks = (
            {} if panel.scale.ticks is None else {"tickvals": panel.scale.ticks[0], "ticktext": panel.scale.ticks[1]}
        )
        fig.add_trace(
            go.Heatmap(
                **cells(panel, layer)[0], x=list(range(columns)), y=list(range(rows)), colorscale=panel.scale.colours,
                zmin=panel.scale.low, zmax=panel.scale.high, **gaps(columns), opacity=OVERLAY, name=f"layer {layer}",
                showscale=layer == 0, colorbar={"x": 0.92, "len": 0.9, "thickness": 10, "outlinewidth": 0, **ticks},
                hovertemplate="%{customdata[1]}: %{customdata[2]}<extra></extra>",
                xaxis=axis_name("x", layer + 1), yaxis=axis_name("y", layer + 1),
            )
        )  # fmt: skip
        outer = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
        domain = {"x": [x0, x0 + 0.86 / across], "y": [y1 - 0.88 / down, y1 - 0.12 / down]}
        fig.update_layout(
            {
                axis_name("xaxis", layer + 1): {
                    **outer, "domain": domain["x"], "range": [-0.5, columns - 0.5], "anchor": axis_name("y", layer + 1),
                    "constrain": "domain", "constraintoward": "left",
                },
                axis_name("yaxis", layer + 1): {
                    **outer, "domain": domain["y"], "range": [rows - 0.5, -0.5], "anchor": axis_name("x", layer + 1),
                    "scaleanchor": axis_name("x", layer + 1), "constrain": "domain", "constraintoward": "top",
                },
            }
        )  # fmt: skip
        fig.add_layout_image(
            source=picture(view.image), xref=axis_name("x", layer + 1), yref=axis_name("y", layer + 1), x=-0.5, y=-0.5,
            sizex=columns, sizey=rows, sizing="stretch", layer="below",
        )  # fmt: skip
        token = f", {view.tokens[0]} {panel.labels[layer][0]}" if view.n_prefix else ""
        fig.add_annotation(
            text=f"layer {layer}{token}", x=x0, y=domain["y"][1], xref="paper", yref="paper", xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": 11},
        )  # fmt: skip
    of = "" if panel.title == "intact" else f"{panel.title}: "  # nothing else is beside it
    fig.update_layout(
        title={"text": of + panel.scale.title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        width=SIDE * across + 120, height=SIDE * down + 110, margin={"l": 12, "r": 12, "t": 70, "b": 12},
    )  # fmt: skip
    return plain(fig).update_layout(paper_bgcolor="white")
