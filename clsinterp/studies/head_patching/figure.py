"""The figure of the head patching study: tokens by layer, heads, and the strongest heads with their intervals."""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import Row, curve, heat, layer_axes, panel_grid, titled
from clsinterp.figures.style import BLUE, DIVERGING, ORANGE

SHOWN = 10  # heads with their intervals


def heads_figure(
    tokens: pa.Table, heads: pa.Table, estimate: pa.Table, names: Sequence[str], place: Callable[[Row], str], about: str
) -> go.Figure:
    """Three panels: prefix tokens and the strongest patch by layer; every head; the strongest heads, real and estimated.

    Args:
        tokens, heads, estimate: tables of `clsinterp.sweeps.patching`.
        names: of the tokens, patches by number.
        place: the name of a head's row.
        about: model and pair of classes.
    """
    by_token: dict[str, dict[int, Row]] = {}
    for row in tokens.to_pylist():
        name = names[row["token"]]
        name = "strongest patch" if name.isdigit() else name
        best = by_token.setdefault(name, {})
        if row["layer"] not in best or row["value"] > best[row["layer"]]["value"]:
            best[row["layer"]] = row
    rows, layers = heads.to_pylist(), sorted({row["layer"] for row in heads.to_pylist()})
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
    guess = {(row["layer"], row["head"]): row for row in estimate.to_pylist()}
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
    where = {"tickvals": list(range(len(strongest))), "ticktext": [place(r) for r in strongest]}
    fig.update_yaxes(autorange="reversed", **where, row=1, col=3)
    title = (
        f"{about}: the strongest head, {place(strongest[0])}, recovers {strongest[0]['value']:.2f} of the difference"
    )
    return finish(fig, title, panel=360)
