"""The figure of the class embedding space study: six panels."""

import plotly.graph_objects as go
import pyarrow as pa

from clsinterp.figures.pieces import curve, finish_panels, layer_axes, level, panel_grid, share_axis
from clsinterp.figures.style import GREY
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import pick

NAMES = {"cls": "CLS token", "patches": "patches", "attn": "attention", "mlp": "MLP"}


def class_space_figure(table: pa.Table, setup: Setup) -> go.Figure:
    """Identifiability, change rates, class-value agreement, matches, probes against the lens, patches kept.

    Args:
        table: the study's tidy table.
        setup: for the model's name and the number of classes.
    """
    layers = setup.layers
    titles = ["class identifiability", "a sublayer's output names the class better<br>than the stream before it",
              "class-value agreement", "top class of a token is that of ..", "lens and probes at the same tokens",
              "accuracy with some patches only"]  # fmt: skip
    fig = panel_grid(titles, columns=3, horizontal_spacing=0.07)

    def lines(names: dict[str, str], row: int, col: int, first: int, twin: bool = True) -> None:
        for n, (name, label) in enumerate(names.items(), start=first):
            curve(fig, pick(table, curve=name, control="trained"), label, n, row=row, col=col)
            if twin:
                control = pick(table, curve=name, control="random twin")
                curve(fig, control, "random twin (dotted)", n, dash="dot", band=False, row=row, col=col)
        layer_axes(fig, len(layers), "block", row=row, col=col)

    parts = [p for p in ("cls", "patches") if pick(table, curve=f"identifiability, {p}")]
    lines({f"identifiability, {p}": NAMES[p] for p in parts}, 1, 1, 0)
    level(fig, (1 + 1 / setup.head.n_classes) / 2, layers, "chance", row=1, col=1)
    share_axis(fig, "1 - rank / C", row=1, col=1)
    moves = {f"class similarity change, {c}, {p}": f"{NAMES[c]}, {NAMES[p]}" for p in parts for c in ("attn", "mlp")}
    lines(moves, 1, 2, 2)
    level(fig, 0.5, layers, "half", GREY, "dash", row=1, col=2)
    share_axis(fig, "share of tokens", row=1, col=2)
    lines({f"class-value agreement, {c}": f"{NAMES[c]} value vectors" for c in ("attn", "mlp")}, 1, 3, 2)
    fig.update_yaxes(title_text="largest cosine, mean over classes", rangemode="tozero", row=1, col=3)
    match = {
        "attn": "attention's output",
        "mlp": "the MLP's output",
        "before": "the stream before",
        "none": "none of them",
    }
    lines({f"top class as in {k}": v for k, v in match.items()}, 2, 1, 2, twin=False)
    share_axis(fig, "share of tokens", row=2, col=1)
    both = {"lens at the same tokens": "lens", "per-token probe": "a probe for each token"}
    lines(both, 2, 2, 6, twin=False)
    share_axis(fig, "identifiability", row=2, col=2)
    kept = [r for r in pick(table, control="trained") if r["share"] is not None]
    for n, order in enumerate(dict.fromkeys(r["order"] for r in kept)):
        for which, dash in (("most", "solid"), ("least", "dot")):
            points = [r for r in kept if r["order"] == order and r["curve"] == f"{which} relevant kept"]
            label = f"{which} relevant kept, by {order}"
            curve(fig, points, label, n, x="share", dash=dash, band=False, row=2, col=3)
    fig.update_xaxes(title_text="share of patches kept", row=2, col=3)
    share_axis(fig, "accuracy", row=2, col=3)
    return finish_panels(fig, f"Tokens in class embedding space: {setup.name}", entries=(7, 7))
