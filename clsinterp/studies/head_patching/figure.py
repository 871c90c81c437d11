"""The figure of the head patching study: tokens by layer, heads, and the strongest heads with their intervals."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import Row, curve, heat, layer_axes, panel_grid, titled
from clsinterp.figures.style import BLUE, DIVERGING, ORANGE
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

SHOWN = 10  # heads with their intervals


def heads_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Three panels: prefix tokens and the strongest patch by layer; every head; the strongest heads, real and estimated.

    Args:
        table: rows of `clsinterp.sweeps.patching` with ``curve`` and ``place``, the name of a token or head; patches have
            numbers.
        shown: for its name.
    """
    by_token: dict[str, dict[int, Row]] = {}
    for row in pick(table, curve="tokens"):
        name = row["place"]
        name = "strongest patch" if name.isdigit() else name
        best = by_token.setdefault(name, {})
        if row["layer"] not in best or row["value"] > best[row["layer"]]["value"]:
            best[row["layer"]] = row
    rows, estimate = (pick(table, curve=curve_name) for curve_name in ("heads", "heads, first-order"))
    layers = sorted({row["layer"] for row in rows})
    pair = " into ".join(rows[0][name] for name in ("clean", "corrupted"))
    titles = ["a token alone, before a block", "a head (z), by block", "strongest heads and their estimates"]
    fig = panel_grid([titled(t, rows, "pairs") for t in titles], horizontal_spacing=0.08)
    for n, (name, found) in enumerate(by_token.items()):
        curve(fig, list(found.values()), "CLS token" if name == "CLS" else name, n, row=1, col=1)
    layer_axes(fig, len(layers), "block", row=1, col=1)
    fig.update_yaxes(title_text="recovered", row=1, col=1)
    numbers = sorted({row["head"] for row in rows})
    cell = {(row["layer"], row["head"]): row["value"] for row in rows}
    top = max(abs(v) for v in cell.values()) or 1.0
    grid = [[cell[layer, head] for head in numbers] for layer in layers]
    few = len(layers) * len(numbers) <= 100
    heat(
        fig, grid, numbers, layers, low=-top, high=top, scale=DIVERGING, bar=None, digits=2 if few else 0, row=1, col=2
    )
    fig.update_xaxes(title_text="head", row=1, col=2)
    fig.update_yaxes(title_text="block", row=1, col=2)
    strongest = sorted(rows, key=lambda row: -row["value"])[:SHOWN]
    guess = {(row["layer"], row["head"]): row for row in estimate}
    for name, colour, symbol, off, chosen in (
        ("patched", BLUE, "circle", -0.15, strongest),
        ("first-order estimate", ORANGE, "diamond", 0.15, [guess[row["layer"], row["head"]] for row in strongest]),
    ):
        fig.add_scatter(
            x=[r["value"] for r in chosen], y=[i + off for i in range(len(chosen))], name=name, mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x={"symmetric": False, "array": [r["ci_high"] - r["value"] for r in chosen],
                     "arrayminus": [r["value"] - r["ci_low"] for r in chosen], "width": 0},
            row=1, col=3,
        )  # fmt: skip
    fig.update_xaxes(title_text="recovered", row=1, col=3)
    where = {"tickvals": list(range(len(strongest))), "ticktext": [r["place"] for r in strongest]}
    fig.update_yaxes(autorange="reversed", **where, row=1, col=3)
    most = f"{strongest[0]['place']}, recovers {strongest[0]['value']:.2f} of the difference"
    title = f"{shown.name}, {pair}: the strongest head, {most}"
    return finish(fig, title, panel=360)
