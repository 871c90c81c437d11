"""The figure of the class embedding space study: nine panels."""

from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import curve, key, layer_axes, level, panel_grid, share_axis, titled
from clsinterp.figures.style import COLOURS
from clsinterp.studies.class_space.cuts import ANOTHER
from clsinterp.studies.shown import Shown
from clsinterp.studies.tidy import pick

PARTS = {"cls": ("CLS token", "solid"), "patches": ("patches", "dot")}
SUBLAYERS = {"attn": "attention", "mlp": "MLP"}
CONTROL = "by chance (dashed): random twin, another class"
TITLES = (
    "1 - rank of the class / C", "tokens with the class on top", "lens and probes, 1 - rank / C", "output names the class better",
    "largest cosine of a class", "top memories hold the class's", "top class of a token is that of", "most relevant kept",
    "least relevant kept",
)  # fmt: skip


def class_space_figure(table: pa.Table, shown: Shown) -> go.Figure:
    """Rows of panels: identifiability, its rate, and probes; sublayers; and where a token's class is from, patches kept.

    Args:
        table: the study's tidy table.
        shown: for the model's name and the number of classes.
    """
    layers = shown.layers
    trained, twin = (pick(table, control=c) for c in ("trained", "random twin"))
    by_name: dict[str, list] = {}
    for point in trained:
        by_name.setdefault(point["curve"], []).append(point)
    kept = [r for r in trained if r["share"] is not None]
    patches = by_name["identifiability, patches"]
    counts = [*[patches] * 4, by_name["class-value agreement, attn"], *[patches] * 2, kept, kept]
    what = ["images"] * 4 + ["classes"] + ["images"] * 4
    fig = panel_grid([titled(*t) for t in zip(TITLES, counts, what, strict=True)], columns=3, horizontal_spacing=0.07)

    def line(name: str, label: str, colour: int | str, row: int, col: int, **looks: Any) -> None:
        curve(fig, by_name.get(name, []), label, colour, row=row, col=col, **looks)

    parts = [p for p in PARTS if f"identifiability, {p}" in by_name]
    for k, part in enumerate(parts):
        for col, name in ((1, "identifiability"), (2, "identifiability rate")):
            line(f"{name}, {part}", PARTS[part][0], k, 1, col)
            control = [r for r in twin if r["curve"] == f"{name}, {part}"]
            curve(fig, control, "random twin (dotted)", COLOURS[k], dash="dot", band=False, row=1, col=col)
    line("lens at the same tokens", "lens", 6, 1, 3)
    line("per-token probe", "a probe for each token", 7, 1, 3)
    level(fig, (1 + 1 / shown.n_answers) / 2, layers, "chance", row=1, col=1)
    level(fig, 1 / shown.n_answers, layers, "chance", row=1, col=2)
    for k, (c, label) in enumerate(SUBLAYERS.items(), start=2):
        for part in parts:
            for col, name in ((1, "class similarity change"), (3, "key-value agreement")):
                line(f"{name}, {c}, {part}", label, k, 2, col, dash=PARTS[part][1])
        line(f"class-value agreement, {c}", label, k, 2, 2)
        control = [r for r in twin if r["curve"] == f"class-value agreement, {c}"]
        curve(fig, control, CONTROL, COLOURS[k], dash="dash", band=False, row=2, col=2)
        line(f"key-value agreement by chance, {c}, patches", CONTROL, COLOURS[k], 2, 3, dash="dash",
             band=False)  # fmt: skip
    level(fig, 0.5, layers, "half", row=2, col=1)
    for part in parts:
        key(fig, f"{PARTS[part][0]} ({'dotted' if part == 'patches' else 'solid'})", PARTS[part][1], row=2, col=1)
    match = {
        "attn": "attention's output",
        "mlp": "the MLP's output",
        "before": "the stream before",
        "none": "none of them",
    }
    for n, (name, label) in enumerate(match.items(), start=2):
        line(f"top class as in {name}", label, n, 3, 1)
    own = [order for order in dict.fromkeys(r["order"] for r in kept) if not order.endswith(ANOTHER.format(""))]
    for n, order in enumerate(own):
        for col, which in ((2, "most"), (3, "least")):
            points = [r for r in kept if r["order"] == order and r["curve"] == f"{which} relevant kept"]
            dash = "dash" if n == 4 else "solid"  # chance in one piece, beside chance
            curve(fig, points, f"patches by {order}", (0, 1, 6, 7, 7)[n], x="share", dash=dash, row=3, col=col)
    for row in (1, 2, 3):
        for col in (1, 2, 3):
            layer_axes(fig, len(layers), "block", row=row, col=col)
            share_axis(fig, "", row=row, col=col)
    for col in (2, 3):
        fig.update_xaxes(title_text="share of patches kept", dtick=0.25, row=3, col=col)
        fig.update_yaxes(title_text="accuracy", row=3, col=col)
    last = {p: by_name[f"identifiability rate, {p}"][-1]["value"] for p in parts}
    said = " and ".join(f"{value:.2f} of {'CLS tokens' if p == 'cls' else 'patches'}" for p, value in last.items())
    title = f"{shown.name}: after the last block {said} name the class, each read by itself"
    return finish(fig, title, panel=260, shared=((1,), (2,), (3,)))
