"""Where a figure's panels, titles and legends stand, in pixels: on a page, and in a column of a paper.

`finish` places them for a page and notes in the figure how, so that `in_column` can place them again, also when the figure was
read from a file.
"""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from clsinterp.errors import RequestError

PAGE = 1200  # pixels across
SIZE, SMALL, TITLE, PANEL_TITLE = 14, 12, 20, 15  # of fonts: axes, legends, titles
LEFT, RIGHT, GAP = 70, 30, 18  # margins; above every panel's title
WIDE = 0.47  # of a letter in the mean, times the size of the font
SAMPLE, LINE = 44, 19  # of a legend: what stands before a name, the height of a line
BAND = "band"  # meta of a trace that is part of another, which stands in the legend
POINTS = 7.5  # of a paper's axes
SCALE = POINTS * 96 / 72 / SIZE  # a paper's figure is drawn narrow and then made smaller as a whole
ROOMY = 5.0  # inches: the least for maps side by side and for names at the ends of lines
HEAD = 60  # pixels that the title takes of a figure that is not `finish`ed
COLUMNS = (3.3, 6.9)  # inches: one panel across, several


def finish(
    fig: go.Figure,
    title: str,
    panel: int = 330,
    *,
    note: str = "",
    right: int = RIGHT,
    shared: Sequence[Sequence[int]] | Literal["all"] = (),
) -> go.Figure:
    """Place all parts of `fig` for a page, with a legend under every panel, or one under rows of panels that share it.

    Args:
        fig: its panels' titles are those of `clsinterp.figures.pieces.panel_grid`.
        title: what was found.
        panel: height of a panel's axes, in pixels.
        note: a line in small print under the title.
        right: margin in pixels, where lines are named at their ends.
        shared: groups of rows, from 1, with one legend for all of their panels, under the last; ``all`` is one for all rows.
    """
    rows = list(range(1, len(_edges(fig)) + 1))
    groups = [rows] if shared == "all" else [list(group) for group in shared]
    titles = [a.text for a in _titles(fig)]
    fig.update_layout(
        template="plotly_white", hovermode="closest", font={"size": SIZE},
        meta={"title": title, "note": note, "panel": panel, "right": right, "shared": groups, "titles": titles},
    )  # fmt: skip
    return arrange(fig, PAGE)


def in_column(fig: go.Figure, inches: float | None = None) -> tuple[go.Figure, str]:
    """A copy for a paper, and the title, which belongs in the caption there; draw it at `SCALE` times its width and height.

    Args:
        fig: a finished figure; any other only gets a width.
        inches: of the column; default 3.3 for one panel across, 6.9 for several.

    Raises:
        RequestError: too narrow for maps side by side, or for names at the ends of lines.
    """
    fig = go.Figure(fig)
    across = len({axis.domain for axis in fig.select_xaxes()})
    how = fig.layout.meta if isinstance(fig.layout.meta, dict) else None
    several = across > 1 or (how is not None and how["right"] > RIGHT)
    if inches is not None and inches < ROOMY and (how is None or how["right"] > RIGHT) and several:
        raise RequestError(
            f"a width of {inches:g} inches was given for maps side by side, or lines that are named at their ends; at least "
            f"{ROOMY:g} are expected."
        )
    width = round((inches or COLUMNS[several]) * 96 / SCALE)
    if how is None:
        said = (fig.layout.title.text or "").replace("<br>", ". ").replace("<sup>", "").replace("</sup>", "")
        above = fig.layout.margin.t
        gone = min(HEAD, above - 10) if said and above is not None and fig.layout.height else 0
        if gone > 0:
            fig.update_layout(margin_t=above - gone, height=fig.layout.height - gone)
        maps = any(axis.scaleanchor for axis in fig.select_yaxes())
        if fig.layout.height and maps:  # as much lower as narrower
            margin = fig.layout.margin
            rest, beside = margin.t + margin.b, margin.l + margin.r
            narrower = (width - beside) / ((fig.layout.width or PAGE) - beside)
            fig.layout.height = rest + round((fig.layout.height - rest) * narrower)
        return fig.update_layout(width=width, title_text=""), said
    for trace in fig.select_traces({"type": "scatter"}):
        if trace.marker.size is None and "markers" in (trace.mode or ""):
            trace.marker.size = 5
    caption = ". ".join(part for part in (how["title"], how["note"]) if part)
    return arrange(fig, width, titled=False), caption


def arrange(fig: go.Figure, width: int, titled: bool = True) -> go.Figure:
    """Place what `finish` noted in a figure of that width, in pixels; without its title if not `titled`."""
    how: dict[str, Any] = fig.layout.meta
    low = titled or how["right"] > RIGHT  # names at the ends of lines need the height
    panel, groups = how["panel"] if low else min(how["panel"], 260), how["shared"]
    edges = _edges(fig)
    across = width - LEFT - how["right"]
    title = _wrapped(how["title"], width - 24, TITLE)
    above = [_title_height(fig, how["titles"], edge, across) + GAP for edge in edges]
    entries = _legends(fig, edges, groups)
    under = [62] * len(edges)  # tick labels and the title of an axis
    for (row, _), found in entries.items():
        if found["names"]:
            under[row] = max(under[row], 62 + 8 + LINE * _lines(found, across))
    small = f"<br><sup>{how['note']}</sup>" if how["note"] else ""
    lines = title.count("<br>") + 1
    top = above[0] + (14 + 26 * lines + (18 if small else 0) if titled else 0)
    starts = [sum(panel + u for u in under[:row]) + sum(above[1 : row + 1]) for row in range(len(edges))]
    plot = starts[-1] + panel
    tops = {edge: 1 - start / plot for edge, start in zip(edges, starts, strict=True)}
    for annotation, text in zip(_titles(fig), how["titles"], strict=True):
        annotation.update(
            text=_wrapped(text, _columns(fig, annotation.x) * across), y=tops[_near(tops, annotation.y)],
            font_size=PANEL_TITLE, yanchor="bottom",
        )  # fmt: skip
    for axis in fig.select_yaxes():
        if axis.overlaying is None:
            high = tops[_near(tops, axis.domain[1] if axis.domain else 1.0)]
            axis.domain = (max(0.0, high - panel / plot), high)
    for trace in fig.select_traces({"type": "heatmap"}):
        low, high = fig.layout["yaxis" + (trace.yaxis or "y")[1:]].domain
        trace.colorbar.update(len=high - low, y=(low + high) / 2)
        if trace.texttemplate:
            share = fig.layout["xaxis" + (trace.xaxis or "x")[1:]].domain or (0.0, 1.0)
            cell = (share[1] - share[0]) * across / len(trace.x)
            trace.update(showscale=trace.showscale and titled, textfont_size=min(trace.textfont.size, int(0.4 * cell)))
    for (row, left), found in entries.items():
        low = tops[edges[row]] - panel / plot
        fig.update_layout(
            {found["legend"]: {"x": left, "y": low - 54 / plot, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0,
                               "orientation": "h" if found["shared"] else "v", "font": {"size": SMALL}}}
        )  # fmt: skip
    bottom = under[-1] + 6
    return fig.update_layout(
        title={"text": title + small if titled else "", "x": 0, "xref": "paper", "xanchor": "left",
               "yref": "container", "yanchor": "bottom",
               "y": 1 - 34 / (top + plot + under[-1] + 6), "pad": {"l": 12 - LEFT}, "font": {"size": TITLE}},
        width=None if titled else width, height=top + plot + bottom,
        margin={"t": top, "b": bottom, "l": LEFT, "r": how["right"]},
    )  # fmt: skip


def _titles(fig: go.Figure) -> list[Any]:
    """The titles of the panels; other annotations stand where data are."""
    return [a for a in fig.layout.annotations if a.yref == "paper"]


def _edges(fig: go.Figure) -> list[float]:
    """The upper ends of the rows of panels, from the top."""
    return sorted({round(axis.domain[1], 6) if axis.domain else 1.0 for axis in fig.select_yaxes()}, reverse=True)


def _near(values: Any, wanted: float) -> float:
    return min(values, key=lambda value: abs(value - wanted))


def _columns(fig: go.Figure, middle: float) -> float:
    """The width of the panel whose middle is there, and of half the space beside it, as a share of all."""
    domains = [axis.domain or (0.0, 1.0) for axis in fig.select_xaxes()]
    low, high = min(domains, key=lambda d: abs(sum(d) / 2 - middle))
    return min(1.0, high - low + 0.04)


def _wrapped(text: str, pixels: float, size: int = PANEL_TITLE) -> str:
    """The first line of `text` in as many as it takes."""
    first, br, rest = text.partition("<br>")
    if "<" in first:  # marked up by whoever wrote it
        return text
    return "<br>".join(textwrap.wrap(first, max(12, int(pixels / (WIDE * size))))) + br + rest


def _title_height(fig: go.Figure, titles: Sequence[str], edge: float, across: float) -> int:
    """Pixels that the titles of the row of panels at `edge` take."""
    here = [
        _wrapped(text, _columns(fig, a.x) * across).count("<br>") + 1
        for a, text in zip(_titles(fig), titles, strict=True) if _near(_edges(fig), a.y) == edge
    ]  # fmt: skip
    return 21 * max(here, default=0)


def _legends(
    fig: go.Figure, edges: Sequence[float], groups: Sequence[Sequence[int]]
) -> dict[tuple[int, float], dict[str, Any]]:
    """Give every trace its legend, each name once in it; (row it stands under, its left end) -> what stands there."""
    found: dict[tuple[int, float], dict[str, Any]] = {}
    if fig.layout.showlegend is False:
        return found
    domains = {axis.domain or (0.0, 1.0) for axis in fig.select_xaxes()}
    for trace in fig.data:
        if trace.type not in ("scatter", "bar"):
            continue
        if not trace.name:
            trace.showlegend = False
            continue
        x = fig.layout["xaxis" + (trace.xaxis or "x")[1:]].domain or (0.0, 1.0)
        y = fig.layout["yaxis" + (trace.yaxis or "y")[1:]].domain or (0.0, 1.0)
        row = edges.index(_near(edges, y[1]))
        group = next((rows for rows in groups if row + 1 in rows), None)
        place = (row, x[0]) if group is None else (max(group) - 1, 0.0)
        here = found.setdefault(place, {
            "legend": f"legend{len(found) + 1}" if found else "legend", "names": [], "shared": group is not None,
            "share": x[1] - x[0] if len(domains) > 1 else 1.0,
        })  # fmt: skip
        hidden = trace.meta == BAND or trace.name in here["names"]
        if not hidden:
            here["names"].append(trace.name)
        trace.update(legend=here["legend"], showlegend=not hidden, legendgroup=f"{here['legend']} {trace.name}")
    return found


def _lines(found: dict[str, Any], across: float) -> int:
    """Lines of a legend: a name each, or names one after the other until a line is full."""
    if not found["shared"]:
        return len(found["names"])
    lines, used = 1, 0.0
    for name in found["names"]:
        wide = SAMPLE + WIDE * SMALL * len(name) + 12
        if used and used + wide > across:
            lines, used = lines + 1, 0.0
        used += wide
    return lines
