"""Pieces of figures that the note and the studies share: curves with bands, levels, heatmaps, panels. All in plotly."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clsinterp.figures.colour import ink, of_scale, written
from clsinterp.figures.layout import BAND
from clsinterp.figures.style import COLOURS, GREY, SEQUENTIAL, SYMBOLS, rgba

Row = dict[str, Any]
INTERVAL = " [%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]}"


def panel_grid(titles: Sequence[str], columns: int | None = None, **options: Any) -> go.Figure:
    """A grid of empty panels, `columns` wide (default: all in a row), ``row`` and ``col`` counted from 1."""
    columns = columns or len(titles)
    rows = -(-len(titles) // columns)
    return make_subplots(rows=rows, cols=columns, subplot_titles=list(titles), **options)


def curve(
    fig: go.Figure, rows: Sequence[Row], name: str, style: int | str, *, x: str = "layer", dash: str = "solid",
    band: bool = True, symbol: str | None = None, width: float = 2, **where: Any,
) -> None:  # fmt: skip
    """A line through the points of `rows` with its 95% interval as a band; hovering tells value, interval and n.

    Args:
        fig: the figure.
        rows: of a tidy table, in order.
        name: in the legend; each name stands there once.
        style: number of the colour and symbol, or a colour (drawn without symbols unless `symbol` names one).
        x: column of the x axis.
        dash: of the line.
        band: whether the interval is drawn.
        width: of the line in pixels; wider ones, drawn first, show where thinner ones cover them.
        **where: ``row`` and ``col``.
    """
    if not rows:
        return
    colour = COLOURS[style % len(COLOURS)] if isinstance(style, int) else style
    place = [row[x] for row in rows]
    known = all(row["ci_low"] is not None for row in rows)
    if band and known:
        edge = [row["ci_high"] for row in rows] + [row["ci_low"] for row in reversed(rows)]
        fig.add_scatter(
            x=place + place[::-1], y=edge, fill="toself", fillcolor=rgba(colour, 0.16), line_width=0, mode="lines",
            hoverinfo="skip", name=name, meta=BAND, **where,
        )  # fmt: skip
    symbol = SYMBOLS[style % len(SYMBOLS)] if isinstance(style, int) else symbol
    marks = {"symbol": symbol, "size": 4 + width} if symbol else None
    fig.add_scatter(
        x=place, y=[row["value"] for row in rows], name=name, marker=marks,
        mode="lines+markers" if marks else "lines", line={"color": colour, "width": width, "dash": dash},
        customdata=[[row["ci_low"], row["ci_high"], row["n"]] for row in rows] if known else None,
        hovertemplate=f"{x} %{{x}}: %{{y:.3f}}{INTERVAL if known else ''}<extra>{name}</extra>", **where,
    )  # fmt: skip


def key(fig: go.Figure, name: str, dash: str = "solid", colour: str = "#333333", **where: Any) -> None:
    """A line that stands in the legend only, and says what its dash or colour means."""
    fig.add_scatter(
        x=[None], y=[None], name=name, mode="lines", line={"color": colour, "dash": dash, "width": 2}, **where
    )


def level(
    fig: go.Figure,
    value: float,
    x: Sequence[Any],
    name: str,
    colour: str = GREY,
    dash: str = "dot",
    width: float = 1.5,
    **where: Any,
) -> None:
    """A horizontal line across the panel, in the legend once."""
    fig.add_scatter(
        x=[x[0], x[-1]], y=[value, value], name=name, mode="lines",
        line={"color": colour, "dash": dash, "width": width}, hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>", **where,
    )  # fmt: skip


def heat(
    fig: go.Figure, z: Sequence[Sequence[float | None]], x: Sequence[Any], y: Sequence[Any], *, title: str = "",
    low: float = 0.0, high: float = 1.0, scale: str = SEQUENTIAL, bar: float | None = 1.02, digits: int = 2,
    size: int = 10, hover: str = "%{y}, %{x}", **where: Any,
) -> None:  # fmt: skip
    """A heatmap with its values written in, in black or white as their cell asks for; row 0 is drawn at the top.

    Args:
        fig: the figure.
        z: values, None where there is none.
        x, y: names of the columns and of the rows.
        title: of the colour bar.
        low, high: ends of the colour scale `scale`.
        bar: the colour bar's place, None for none.
        digits: of the values written in; 0 writes none.
        size: of their font.
        hover: says which cell it is.
        **where: ``row`` and ``col``.
    """

    def number(value: float | None) -> str:
        if value is None:
            return ""
        cell = of_scale(scale, (value - low) / (high - low))
        return written(f"{round(value, digits) + 0.0:.{digits}f}", ink(cell))

    text = [[number(v) for v in line] for line in z] if digits else None
    shown = {"text": text, "texttemplate": "%{text}", "textfont": {"size": size}} if digits else {}
    fig.add_trace(
        go.Heatmap(
            x=list(x), y=list(y), z=[list(line) for line in z], colorscale=scale, zmin=low, zmax=high, xgap=1, ygap=1,
            showscale=bar is not None, colorbar={"title": title, "x": bar, "thickness": 12},
            hovertemplate=f"{hover}: %{{z:.3f}}<extra></extra>", **shown,
        ),
        **(where or {}),
    )  # fmt: skip
    fig.update_yaxes(autorange="reversed", showgrid=False, zeroline=False, dtick=1, ticklabelstandoff=5, **where)
    fig.update_xaxes(showgrid=False, zeroline=False, dtick=1, **where)


def layer_axes(fig: go.Figure, n_layers: int, title: str = "layer", **where: Any) -> None:
    """Name the x axis after the layers, with a tick on each where they are few."""
    fig.update_xaxes(title_text=title, dtick=1 if n_layers <= 16 else None, **where)


def share_axis(fig: go.Figure, title: str, **where: Any) -> None:
    """A y axis from 0 to 1."""
    fig.update_yaxes(title_text=title, range=[-0.02, 1.02], **where)


def titled(title: str, rows: Sequence[Row], what: str = "images") -> str:
    """A panel's title, and under it how many `what` its points stand for: every panel's title has two lines.

    Example:
        >>> titled("accuracy", [{"n": 300}, {"n": 300}])
        'accuracy<br><sup>n = 300 images</sup>'
    """
    numbers = sorted({row["n"] for row in rows if row["n"] is not None})
    known = " to ".join(str(n) for n in dict.fromkeys((numbers[0], numbers[-1]))) if numbers else "none"
    return f"{title}<br><sup>n = {known} {what}</sup>"
