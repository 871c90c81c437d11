"""Colours, marks and margins that every figure shares."""

import plotly.graph_objects as go

# Chosen by a search: any two are told apart with normal sight and without one kind of cones (CIEDE2000 of 13 or more), and all
# by three to one from white; `tests/figures/test_colours.py` measures it. Red is a rust, purple an indigo, cyan a sky blue.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1564d1", "#e7750a", "#006346", "#b34c05", "#2605a5", "#777777"
BROWN, PINK, CYAN = "#522500", "#b586a9", "#0f9af3"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, CYAN)
SEQUENTIAL, DIVERGING = "Viridis", "RdBu"
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "cross", "star", "hexagon")


def rgba(colour: str, alpha: float) -> str:
    """A hex colour with transparency."""
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{alpha})"


def finish(fig: go.Figure, title: str, height: int, top: int = 100) -> go.Figure:
    """Title in a margin of `top` pixels, size, and a legend under the axes in which each name stands once."""
    bottom = 130
    named: set[str] = set()
    for trace in fig.data:
        if getattr(trace, "legendgroup", None) and trace.showlegend is not False:
            trace.showlegend = trace.legendgroup not in named
            named.add(trace.legendgroup)
    fig.update_layout(
        template="plotly_white", title={"text": title, "x": 0.01, "xanchor": "left"}, height=height, hovermode="closest",
        font={"size": 14}, margin={"t": top, "b": bottom, "l": 70, "r": 30},
        legend={"orientation": "h", "x": 0, "yanchor": "top", "y": -60 / (height - top - bottom)},
    )  # fmt: skip
    return fig
