"""One run as one picture that says what was found: where the label can be read, and from where the output depends on it.

"Depends" is what a swap shows: the answers change. A flat curve means that nothing after that layer needs this image's CLS
token, not that the model computes nothing with CLS tokens there."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.colour import as_text
from clsinterp.figures.facts import Facts
from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, layer_axes, level, share_axis
from clsinterp.figures.style import BLUE, GREEN, GREY, ORANGE

# curve -> (name at the line's end, colour, symbol), from the one that is drawn last.
LINES = {
    "probe": ("probe: label read<br>from the CLS token", BLUE, "circle"),
    "shuffle_cls_only": ("CLS read-out alone,<br>CLS swapped", GREEN, "diamond"),
    "shuffle": ("output,<br>CLS swapped", ORANGE, "square"),
}
APART = 0.105  # of the y axis, between the names of two lines


def headline_figure(
    facts: Facts, curves: pa.Table, onsets: Mapping[str, int | None], title: str | None = None
) -> go.Figure:
    """Probe, output and CLS-only output by layer, named at the ends of their lines, with the finding as the title.

    Args:
        facts, curves: of the run.
        onsets: the layers ``decodable_from`` and ``used_from``; None where there is none.
        title: another title than the finding.
    """
    rows = {kind: _rows(curves, kind) for kind in (*LINES, "intact")}
    layers = [row["layer"] for row in rows["shuffle"]]
    fig = go.Figure()
    read, used = onsets["decodable_from"], onsets["used_from"]
    if read is not None and used is not None and used > read:
        fig.add_vrect(x0=read - 0.5, x1=used - 0.5, fillcolor=GREY, opacity=0.09, line_width=0, layer="below")
        fig.add_annotation(
            x=(read + used - 1) / 2, y=0.3, text="can be read here;<br>the output hardly depends on it", showarrow=False,
            font={"size": 17, "color": "#555"},
        )  # fmt: skip
    ends = layers[0] - 0.4, layers[-1] + 0.4
    intact = rows["intact"][0]["value"]
    level(fig, intact, ends, "output, intact", ORANGE, "dash")
    names = [("output, intact", ORANGE, intact)]
    if facts.floors is not None:
        floor = facts.floors["use"]
        level(fig, floor, ends, "floor: the output follows the donor")
        names.append(("floor: output<br>follows the donor", GREY, floor))
    for kind, (name, colour, symbol) in LINES.items():
        if rows[kind]:
            curve(fig, rows[kind], name, colour, symbol=symbol)
            names.append((name, colour, rows[kind][-1]["value"]))
    _named_at_the_ends(fig, names, ends[1])
    layer_axes(fig, facts.n_layers, "layer whose CLS token is read (blue) or swapped between images (orange, green)")
    share_axis(fig, "accuracy")
    n = rows["intact"][0]["n"]
    note = f"{facts.model}, n = {n} test images, {facts.n_labels} classes; bands: 95% intervals over images"
    fig.update_layout(showlegend=False)
    finish(fig, title or finding(facts, onsets), 440, note=note, right=210)
    fig.update_xaxes(range=[ends[0] - 0.1, ends[1] + 0.02])
    return fig


def finding(facts: Facts, onsets: Mapping[str, int | None]) -> str:
    """The two layers in a sentence."""
    read, used = onsets["decodable_from"], onsets["used_from"]
    if read is None:
        return "No layer's CLS token gives the label away"
    begin = f"The label can be read from the CLS token from layer {read} on"
    if used is None:
        return f"{begin}; no swap costs half of what it could"
    if used == facts.n_layers - 1 and used > read:
        return f"{begin}; the output depends on it at the last one only"
    return f"{begin}; the output depends on it from layer {used} on"


def _rows(curves: pa.Table, kind: str) -> list[dict]:
    found = [r for r in curves.to_pylist() if r["curve"] == kind and r["metric"] == "accuracy"]
    return sorted((r for r in found if r["layer"] is None or r["layer"] >= 0), key=lambda r: r["layer"] or 0)


def _named_at_the_ends(fig: go.Figure, names: Sequence[tuple[str, str, float]], x: float) -> None:
    """Names to the right of their lines' ends, pushed apart where lines end together; each says the value there."""
    ordered = sorted(names, key=lambda entry: entry[2])
    places: list[float] = []
    for _, _, value in ordered:
        places.append(max(value, places[-1] + APART if places else value))
    over = max(0.0, places[-1] - 1.0)
    for i in range(len(places) - 1, -1, -1):  # down again where the pile grew out of the panel
        ceiling = (places[i + 1] - APART) if i + 1 < len(places) else places[i] - over
        places[i] = min(places[i], ceiling)
    for (name, colour, value), place in zip(ordered, places, strict=True):
        fig.add_annotation(
            x=x, y=place, text=f"{name} <b>{value:.2f}</b>", showarrow=False, xanchor="left", xshift=8, align="left",
            font={"size": 14, "color": as_text(colour)},
        )  # fmt: skip
