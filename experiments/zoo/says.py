"""What a zoo card says of its curves in words: filled in from the numbers that the card's tables show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# How a read-out is turned off, in words.
OFF = {
    "zero": "set to zero",
    "mean": "held at its mean",
    "refit": "left out and the head fitted again",
}


@dataclass(frozen=True)
class Numbers:
    """What was measured of a checkpoint, and what was published of its large counterpart.

    Attributes:
        intact: accuracy of the untouched output by read-out, ``intact`` and ``intact_cls_only``.
        curves: accuracy by layer of ``probe``, ``shuffle``, ``shuffle_cls_only``.
        used_from: the first layer whose swap costs half of what it can; None if there is none.
        cls_only: how the other read-outs were turned off, as in ``clsinterp run --cls-only``.
        recipes: what else was trained: name -> its ``test_accuracy`` and ``shuffle``.
        published: curves as above, and ``intact``.
    """

    intact: dict[str, float]
    curves: dict[str, Sequence[float]]
    used_from: int | None
    cls_only: str
    recipes: dict[str, dict[str, Any]]
    published: dict[str, Any]

    def points(self, layer: int) -> str:
        """What a swap costs, in percentage points."""
        return f"{100 * (self.intact['intact'] - self.curves['shuffle'][layer]):.1f}"

    def costs(self) -> str:
        """The first sentence of the cards of single read-outs."""
        whole = "half of what it can cost" if self.used_from is not None else "less than half of what it could"
        where = f"from layer {self.used_from} on" if self.used_from is not None else "at every layer"
        return f"A swap costs {self.points(0)} points at layer 0 and {whole} {where}."

    def steps(self) -> str:
        """Where accuracy falls most from one layer to the next, here and as published."""
        (here, at), (there, where) = (largest_step(c["shuffle"]) for c in (self.curves, self.published))
        return (
            f"From one layer to the next it loses {here:.2f} at most, at layer {at}; the published model {there:.2f}, at layer "
            f"{where}."
        )

    def halved(self) -> str:
        """Where the CLS read-out alone has lost half of its accuracy, here and as published."""
        here = _halved(self.curves["shuffle_cls_only"], self.intact["intact_cls_only"])
        there = _halved(self.published["shuffle_cls_only"], self.published["intact_cls_only"])
        return f"of that less than half is left {here}, in the published model {there}"


def largest_step(curve: Sequence[float]) -> tuple[float, int]:
    """The largest fall from one layer to the next, and the layer it leads to."""
    falls = [(a - b, layer) for layer, (a, b) in enumerate(pairwise(curve), start=1)]
    return max(falls)


def _halved(curve: Sequence[float], intact: float) -> str:
    layers = [layer for layer, value in enumerate(curve) if value < intact / 2]
    return f"from layer {layers[0]} on" if layers else "at no layer"


def vit(n: Numbers) -> str:
    """Late or early, and what other recipes gave."""
    parts = [n.costs(), n.steps()]
    for name, found in n.recipes.items():
        left = ", ".join(f"{found['shuffle'][layer]:.2f} at layer {layer}" for layer in (3, 6, 8))
        parts.append(f"The recipe `{name}` below, of test accuracy {found['test_accuracy']:.2f}, leaves {left}.")
    return " ".join(parts)


def beit(n: Numbers) -> str:
    """Late or early."""
    return f"{n.costs()} {n.steps()}"


def deit(n: Numbers) -> str:
    """With both heads, and with the CLS head alone."""
    most = max(n.intact["intact"] - value for value in n.curves["shuffle"])
    published = max(n.published["intact"] - value for value in n.published["shuffle"])
    return (
        f"With both heads a swap costs {100 * most:.1f} points at most, in the published model {100 * published:.1f}: the "
        f"distillation token is not swapped. The CLS head alone gives {n.intact['intact_cls_only']:.2f} untouched; {n.halved()}."
    )


def dinov2(n: Numbers) -> str:
    """The whole head, and its CLS part, which is not all that the token says."""
    last = len(n.curves["probe"]) - 1
    together = (
        "" if n.cls_only == "refit" else " That is a number of the head, which was fitted on both halves together:"
    )
    return (
        f"A swap costs {n.points(0)} points at layer 0 and {n.points(last)} at layer {last}. With the patch mean "
        f"{OFF[n.cls_only]} the output is right for {n.intact['intact_cls_only']:.2f} untouched; {n.halved()}.{together} "
        f"{'a' if together else 'A'} probe reads {n.curves['probe'][last]:.2f} from the same CLS token."
    )


def clip(n: Numbers) -> str:
    """A head that reads patches."""
    most = max(n.intact["intact"] - value for value in n.curves["shuffle"])
    last = n.curves["probe"][-1]
    low, high = min(n.published["shuffle"]), max(n.published["shuffle"])
    than = "better" if last > n.intact["intact"] else "no better"
    return (
        f"No swap costs more than {100 * max(most, 0):.1f} points; the published accuracies under a swap lie between {low:.2f} "
        f"and {high:.2f}. The head reads the patch mean and gives {n.intact['intact']:.2f}; a probe reads the label from the CLS "
        f"token {than} than that, at {last:.2f} after the last block."
    )


def clip_text(n: Numbers) -> str:
    """A head of class names, which reads the CLS token."""
    last = len(n.curves["probe"]) - 1
    return (
        f"{n.costs()} At layer {last} it leaves {n.curves['shuffle'][last]:.2f} of {n.intact['intact']:.2f}; a probe reads "
        f"{n.curves['probe'][0]:.2f} from the token at layer 0 and {n.curves['probe'][last]:.2f} at layer {last}."
    )


SAYS: dict[str, Callable[[Numbers], str]] = {"vit": vit, "deit": deit, "beit": beit, "dinov2": dinov2, "clip": clip}
