"""Quantities of a lens view as maps over its tokens: numbers, labels and a colour scale that all layers share."""

import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.data import names
from clsinterp.errors import RequestError
from clsinterp.figures.colour import ink, over, rgb, written
from clsinterp.probing.metrics import identifiability, ranks
from clsinterp.views.reading import Reading

# quantity -> what a reader is told it is; CLASS stands for the class it is about.
QUANTITIES = {
    "probability": "probability of CLASS",
    "logit": "logit of CLASS",
    "rank": "rank of CLASS",
    "identifiability": "identifiability of CLASS",
    "top1": "most probable class",
    "entropy": "entropy (bits)",
    "attention": "CLS attention",
}
OF_A_CLASS = ("probability", "logit", "rank", "identifiability")
# Told apart with normal sight and without one kind of cones, each dark or pale enough for the letter in its cell, also where
# the picture shines through (`tests/views/test_view_colours.py`); letters in the cells say the same without colour.
CLASS_COLOURS = (
    "#e8aa06", "#94caff", "#049570", "#ffff87", "#002fed", "#b97018", "#9c7da9", "#450569", "#054f49", "#a00200",
)  # fmt: skip
AFTER_LESS_BEFORE = "intervened − intact"
OTHER_COLOUR = "#b5b5b5"
SAME, CHANGED = "#dddddd", "#0072b2"
# Blue to red, nowhere so dark that a black sign could not be read.
DIFFERENCE: list[tuple[float, str]] = [(0.0, "#4393c3"), (0.5, "#f7f7f7"), (1.0, "#d6604d")]
OVERLAY = 0.75  # opacity of the colours over the picture
GREYS = (90, 255)  # of the picture under them, the darkest and the palest


@dataclass(frozen=True)
class Scale:
    """From numbers to colours, the same for every layer.

    Attributes:
        colours: a plotly colour scale.
        low, high: ends of the range.
        title: quantity and unit.
        ticks: positions on the colour bar and what stands there; None leaves it to plotly.
        beside: what stands beside the colour bar; empty where the title says it all.
    """

    colours: Any
    low: float
    high: float
    title: str
    ticks: tuple[list[float], list[str]] | None = None
    beside: str = ""


@dataclass(frozen=True)
class Panel:
    """One map at every layer.

    Attributes:
        title: of the panel.
        view: whose tokens they are.
        z: what is coloured.
        labels: what a reader is told about each token, by layer and token.
        marks: a letter or sign in each cell, by layer and token; empty for none.
        scale: the colours.
    """

    title: str
    view: Reading
    z: Float[Tensor, "layer token"]
    labels: list[list[str]]
    marks: list[list[str]]
    scale: Scale


def values(
    view: Reading, quantity: str, class_index: int | str | None = None, head: int | None = None
) -> Float[Tensor, "layer token"]:
    """The numbers behind a map.

    Args:
        view: the view.
        quantity: ``probability``, ``logit``, ``rank`` (0-based) or ``identifiability`` (1 - rank / C) of a class;
            ``top1`` (the most probable class's index); ``entropy`` in bits; ``attention`` of the CLS token.
        class_index: the class, by number or name; default the output's most probable one.
        head: the attention head; default the mean of all.

    Raises:
        RequestError: no such quantity, class or head, or attention without a CLS token.
    """
    if quantity not in QUANTITIES:
        raise RequestError(f"quantity {quantity!r} was given; one of {', '.join(QUANTITIES)} is expected.")
    if quantity in OF_A_CLASS:
        which = default_class(view, class_index)
        if quantity == "probability":
            return view.probabilities[..., which]
        if quantity == "logit":
            return view.logits[..., which]
        rank = ranks(view.logits, torch.full(view.logits.shape[:2], which))
        return rank.float() if quantity == "rank" else identifiability(rank, view.logits.shape[-1]).float()
    if quantity == "top1":
        return view.logits.argmax(-1).float()
    if quantity == "entropy":
        return torch.special.entr(view.probabilities).sum(-1) / math.log(2)
    if view.attention is None:
        raise RequestError(f"A {view.family} model has no CLS token, so there is no CLS attention to show.")
    if head is None:
        return view.attention.mean(1)
    if not 0 <= head < view.attention.shape[1]:
        raise RequestError(f"head {head} was given; this model has heads 0 to {view.attention.shape[1] - 1}.")
    return view.attention[:, head]


def default_class(view: Reading, class_index: int | str | None) -> int:
    """`class_index`, or the output's most probable class.

    Raises:
        RequestError: no such class.
    """
    if class_index is None:
        return int(view.output.argmax())
    return names.class_index(class_index, view.class_names)


def panels(
    views: Sequence[Reading], quantity: str, class_index: int | str | None = None, head: int | None = None
) -> list[Panel]:
    """The maps of one view, or of an intact and an intervened one with their difference.

    All panels but the difference share one colour scale. The class is the same in both views: by default the intact
    output's most probable one.

    Raises:
        RequestError: as in `values`.
    """
    which = default_class(views[0], class_index) if quantity in OF_A_CLASS else None
    numbers = [values(view, quantity, which, head) for view in views]
    title = QUANTITIES.get(quantity, quantity)
    if which is not None:
        title = title.replace("CLASS", shown(views[0].class_names[which]))
    if quantity == "attention":
        title += ", mean over heads" if head is None else f", head {head}"
    titles = (
        ["intact", "intervened"] if len(views) > 1 else ["intact" if views[0].intervention is None else "intervened"]
    )
    if quantity == "top1":
        found = _top1_panels(views, numbers, titles, title)
    else:
        scale = _scale(quantity, numbers, title, len(views[0].class_names))
        found = [
            Panel(name, view, _place(quantity, z), _labels(quantity, z), [], scale)
            for name, view, z in zip(titles, views, numbers, strict=True)
        ]
    if len(views) > 1:
        found.append(_difference(views[1], quantity, numbers[0], numbers[1], title))
    return found


def shown(name: str, longest: int = 28) -> str:
    """A class name fit for plotly, which reads its texts as HTML: escaped, and cut where it is long."""
    return html.escape(name if len(name) <= longest else f"{name[: longest - 1]}…")


def _sign(text: str, colour: str) -> str:
    """`text` in the ink that is read on `colour`, be the picture under it dark or pale."""
    return written(text, ink(*(over(rgb(colour), (grey,) * 3, OVERLAY) for grey in GREYS)))


def _place(quantity: str, z: Tensor) -> Tensor:
    return torch.log10(z + 1) if quantity == "rank" else z  # the first ranks are what matters


def _labels(quantity: str, z: Tensor) -> list[list[str]]:
    form = {"rank": "{:.0f}", "logit": "{:.3f}", "entropy": "{:.3f}"}.get(quantity, "{:.4f}")
    return [[form.format(x) for x in row] for row in z.tolist()]


def _scale(quantity: str, numbers: list[Tensor], title: str, n_classes: int) -> Scale:
    low, high = min(float(z.min()) for z in numbers), max(float(z.max()) for z in numbers)
    if quantity == "rank":
        at = sorted({0, *(x for x in (1, 3, 10, 30, 100, 300) if x < n_classes - 1), n_classes - 1})
        ticks = [math.log10(x + 1) for x in at], [str(x) for x in at]
        return Scale("Viridis_r", 0.0, math.log10(n_classes), f"{title} (0 is first)", ticks)
    if quantity == "logit":
        return Scale("Viridis", low, high if high > low else low + 1, title)
    if quantity == "entropy":
        return Scale("Cividis", 0.0, math.log2(n_classes) or 1.0, title)
    top = next(x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if high <= x)
    return Scale("Cividis" if quantity == "attention" else "Viridis", 0.0, 1.0 if top > 0.2 else top, title)


def _top1_panels(views: Sequence[Reading], numbers: list[Tensor], names: list[str], title: str) -> list[Panel]:
    """Classes as colours and letters, the most frequent ones first; the rest share one colour."""
    counts = Counter(int(x) for z in numbers for x in z.flatten().tolist())
    first = [c for c, _ in counts.most_common(len(CLASS_COLOURS))]
    place = {c: i for i, c in enumerate(sorted(first))}
    colours = [*CLASS_COLOURS[: len(place)], *([OTHER_COLOUR] if len(counts) > len(place) else [])]
    n = len(colours)
    steps = [[edge, colour] for i, colour in enumerate(colours) for edge in (i / n, (i + 1) / n)]
    letters = [chr(ord("A") + i) for i in range(len(place))]
    class_names = views[0].class_names
    text = [f"{letter}  {shown(class_names[c], 10)}" for letter, c in zip(letters, place, strict=True)]
    text += ["other"] * (n - len(place))
    scale = Scale(steps, -0.5, n - 0.5, title, (list(range(n)), text))
    signs = [*(_sign(letter, colours[i]) for i, letter in enumerate(letters)), _sign("·", OTHER_COLOUR)]
    made = []
    for name, view, z in zip(names, views, numbers, strict=True):
        slots = [[place.get(int(c), n - 1) for c in row] for row in z.tolist()]
        marks = [[signs[s] for s in row] for row in slots]
        labels = [[shown(class_names[int(c)]) for c in row] for row in z.tolist()]
        made.append(Panel(name, view, torch.tensor(slots, dtype=torch.float32), labels, marks, scale))
    return made


def _difference(view: Reading, quantity: str, before: Tensor, after: Tensor, title: str) -> Panel:
    """Intervened minus intact; for classes, where they differ."""
    if quantity == "top1":
        z = (before != after).float()
        two = [[0, SAME], [0.5, SAME], [0.5, CHANGED], [1, CHANGED]]
        scale = Scale(two, 0, 1, "in the most probable class", ([0.25, 0.75], ["same", "other"]))
        return Panel("difference", view, z, [[("same", "other")[int(x)] for x in row] for row in z.tolist()], [], scale)
    z = after - before
    top = float(z.abs().max()) or 1.0
    form = "{:+.0f}" if quantity == "rank" else "{:+.4f}"
    # Signs in the cells: the two ends of a diverging scale look the same in grey.
    less, more = (_sign(sign, colour) for sign, (_, colour) in zip("−+", (DIFFERENCE[0], DIFFERENCE[-1]), strict=True))
    marks = [[more if x > top / 5 else less if x < -top / 5 else "" for x in row] for row in z.tolist()]
    labels = [[form.format(x) for x in row] for row in z.tolist()]
    # The last step of one digit below the end, with its sign, fits beside the bar: 0.0734 has ticks at -0.07, 0, +0.07.
    step = 10.0 ** math.floor(math.log10(top))
    end = math.floor(top / step) * step
    ticks = [-end, 0.0, end], [f"−{end:g}", "0", f"+{end:g}"]
    scale = Scale(DIFFERENCE, -top, top, f"in {title}", ticks, AFTER_LESS_BEFORE)
    return Panel("difference", view, z, labels, marks, scale)
