"""What the page says of itself: what a square is, what can be done, who reads what, and what an answer can be."""

import math
from typing import Any

from dash import html

from clsinterp.explore.session import Session
from clsinterp.probing.lens import lens_readout

LISTED = 12  # names of classes on the page


def how_to_read(session: Session) -> list[Any]:
    """Beside the map, until two views are compared."""
    family, slices = session.model.family, session.model.layout.slices
    words = {"cls": "the CLS token", "distill": "the distillation token", "registers": "register tokens",
             "patches": "patches"}  # fmt: skip
    parts = {"cls": "its CLS part", "distill": "the distillation head", "patch_mean": "its patch-mean part"}
    if len(family.readouts) == 1:
        reads = f"{' and '.join(words[g] for g in slices)} through the whole classifier"
    else:
        reads = ", ".join(f"{words[g]} through {parts[lens_readout(family, g)]}" for g in slices)
    norm = "after the final norm" if session.model.lens_norm is not None else "without a norm, as this family has none"
    return [
        html.H2("How to read this"),
        html.P("Each square is a token at one layer. Its colour says what the model's own classifier, applied there, "
               "reads in it."),
        html.Ul([
            html.Li([html.B("Point"), " at a patch, or use Tab and the arrow keys: its top five classes stand below."]),
            html.Li([html.B("Slide"), " through the layers, or press Play."]),
            html.Li([html.B("Intervene"), " on the left: the map after it and the difference appear here."]),
        ]),
        html.P(f"In this {family.name} model the lens reads {reads}, {norm}. {_classes(session)}", className="fine"),
    ]  # fmt: skip


def _classes(session: Session) -> str:
    """What an answer can be, and how sure a fitted head can sound."""
    names, fitted = session.model.class_names or [], session.model.checkpoint.head == "fitted"
    listed = f": {', '.join(names)}" if len(names) <= LISTED else ""
    sure = 1 / (1 + (len(names) - 1) * math.exp(-2))  # softmax of the targets of the regression, 1 and -1
    how = f" The head is a ridge regression: its surest answers have about {100 * sure:.0f}%." if fitted else ""
    return f"Whatever the image shows, the answer is among {len(names)} classes{listed}.{how}"
