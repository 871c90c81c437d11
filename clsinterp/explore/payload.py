"""What the browser needs to draw a state at every layer, so that a layer change asks the server nothing."""

import json
from typing import Any

import torch

from clsinterp.explore.state import State
from clsinterp.views.drawing import cells, maps_figure
from clsinterp.views.lens import LensView
from clsinterp.views.maps import OF_A_CLASS, default_class, panels
from clsinterp.views.trajectory import trajectory_figure

TOP = 5


def payload(views: list[LensView], state: State) -> dict[str, Any]:
    """Figures at the last layer, the cells of every layer, and the top classes of every token.

    Numbers are those of the views, rounded to 6 digits.

    Raises:
        RequestError: a quantity, class or head the model does not have.
    """
    intact = views[0]
    layer = intact.n_layers - 1
    found = panels(views, state.quantity, state.class_index, state.head)
    which = default_class(intact, state.class_index) if state.quantity in OF_A_CLASS else state.class_index
    return {
        "maps": as_json(maps_figure(found, layer, slots=len(found))),
        "trajectory": as_json(trajectory_figure(views, layer, which)),
        "cells": [[cell for panel in found for cell in _short(cells(panel, at))] for at in range(intact.n_layers)],
        # The largest difference at each layer: where there is none, the page opens elsewhere.
        "change": _rounded(found[-1].z.abs().amax(1)) if len(views) > 1 else None,
        "tokens": intact.tokens,
        "n_prefix": intact.n_prefix,
        "grid": intact.grid,
        "n_layers": intact.n_layers,
        "views": [_tops(view) for view in views],
        "image": state.image,
    }


def _short(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "z": [[_round(x) for x in row] for row in one["z"]]} for one in found]


def _tops(view: LensView) -> dict[str, Any]:
    probability, index = view.top(TOP)
    logits = view.logits.gather(-1, index)
    output = view.output.softmax(-1).topk(min(TOP, len(view.output)))
    return {
        "classes": index.tolist(),  # layer, token, rank
        "p": _rounded(probability),
        "logits": _rounded(logits),
        "output": {
            "classes": output.indices.tolist(),
            "p": _rounded(output.values),
            "logits": _rounded(view.output[output.indices]),
        },
    }


def _rounded(values: torch.Tensor) -> Any:
    if values.ndim == 0:
        return _round(float(values))
    return [_rounded(v) for v in values] if values.ndim > 1 else [_round(v) for v in values.tolist()]


def _round(x: float) -> float:
    return float(f"{x:.6g}")


def as_json(figure: Any) -> Any:
    """A figure as plain lists and numbers: plotly.py's packed arrays would have to be unpacked in the browser."""
    figure.update_layout(template=None)
    return json.loads(figure.to_json(engine="json"))
