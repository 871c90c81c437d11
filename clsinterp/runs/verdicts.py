"""What a run says in one word each: from which layer the label can be decoded, from which the output uses it.

Both are halfway points between a floor and a top, and neither is given where there is no way to go.

- Use: the top is the intact accuracy, the floor what the accuracy would be if the output followed the donor: the share of
  images whose donor's intact answer is the host's label. Where a replacement has no donor, the output could at best be
  constant: the floor is the share of the most frequent class.
- Availability: the top is the best probe, the floor the share of the most frequent label among the test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from clsinterp.figures.facts import layer_said
from clsinterp.runs.by_image import ByImage
from clsinterp.sweeps.columns import column

DRAWS = 1000
FEWEST = 100  # test images below which nothing is decided
ROUNDING = 1e-9  # exactly half way counts


@dataclass(frozen=True)
class Onset:
    """The first layer at which a curve passes half its way, with a bootstrap interval over images.

    Attributes:
        layer: that layer; None where the curve never gets there, or where nothing can be said.
        ci: the 95% interval of the layer; an end is None where it is "never".
        reason: why nothing can be said; None where something is.
    """

    layer: int | None
    ci: tuple[int | None, int | None] = (None, None)
    reason: str | None = None

    def __str__(self) -> str:
        """The layer, and its interval where resampling moves it; ``n/a`` where nothing can be said."""
        if self.reason:
            return "n/a"
        return layer_said(self.layer, *self.ci)

    def to_json(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {**asdict(self), "ci": list(self.ci)}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> Onset:
        """The twin of `to_json`."""
        return cls(value["layer"], (value["ci"][0], value["ci"][1]), value.get("reason"))


@dataclass(frozen=True)
class Verdicts:
    """What sums a run up.

    Attributes:
        floors: ``use`` and ``availability``, as accuracies.
        decodable_from, used_from: the two layers.
    """

    floors: dict[str, float]
    decodable_from: Onset
    used_from: Onset

    @property
    def onsets(self) -> dict[str, Onset]:
        """The two layers by name, as ``run.json`` has them."""
        return {"decodable_from": self.decodable_from, "used_from": self.used_from}


@dataclass(frozen=True)
class Curves:
    """What the two are read from, image by image.

    Attributes:
        layers: those from 0 on.
        intact, floor, majority: (image,): whether the answer is right, whether the donor's is, whether the label is the most
            frequent one.
        shuffle, probe: (image, layer): whether the answer after a swap is right, and the probe's.
    """

    layers: Sequence[int]
    intact: np.ndarray
    floor: np.ndarray
    majority: np.ndarray
    shuffle: np.ndarray
    probe: np.ndarray

    @classmethod
    def of(cls, images: pa.Table, classes: Sequence[int]) -> Curves:
        """From per-image ranks and answers, as a run writes them, and the classifier's class of each label of the data."""
        table = ByImage(images)
        layers = table.layers("shuffle")
        by_layer = (_by_layer([table.right(column(curve, x)) for x in layers]) for curve in ("shuffle", "probe"))
        return cls(layers, table.right("rank_intact"), table.following(classes), table.of_majority(), *by_layer)

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.intact)

    def reasons(self) -> dict[str, str | None]:
        """Why nothing can be said on ``decodable_from`` and on ``used_from``; None where something can."""
        refusal = _refusal(self.n, self.layers)
        reasons = {"decodable_from": refusal, "used_from": refusal}
        if refusal:
            return reasons
        best = self.probe[:, self.probe.mean(0).argmax()]
        if not _above(best, self.majority, len(self.layers)):
            reasons["decodable_from"] = (
                f"the best probe ({best.mean():.3f}) is not above the share of the most frequent label "
                f"({self.majority.mean():.3f})"
            )
        if not _above(self.intact, self.floor):
            reasons["used_from"] = (
                f"the intact accuracy ({self.intact.mean():.3f}) is not above what is left if the output follows the swap "
                f"({self.floor.mean():.3f})"
            )
        return reasons


def verdicts(images: pa.Table, classes: Sequence[int], seed: int = 0) -> Verdicts:
    """The floors and the two layers of a run.

    Args:
        images: per-image ranks and answers, as a run writes them.
        classes: for each label of the data, the classifier's class.
        seed: of the 1000 bootstrap resamples of the images.

    Returns:
        ``used_from``: the first layer whose swap costs half of intact minus floor; no layer where intact is not above the
        floor (95%, paired). ``decodable_from``: the first layer whose probe passes halfway between floor and best probe; no
        layer where the best is not above the floor (95%, paired, corrected for choosing the best of all layers). Neither
        below 100 images. Layer -1, before block 0, takes no part.
    """
    curves = Curves.of(images, classes)
    reasons = curves.reasons()

    def first(weights: np.ndarray) -> tuple[int, int]:
        """Places of the two layers for image weights that sum to 1; ``len(layers)`` is never."""
        top, low = weights @ curves.intact, weights @ curves.floor
        read, chance = weights @ curves.probe, weights @ curves.majority
        used = top - weights @ curves.shuffle >= (top - low) / 2 - ROUNDING
        return _first(read >= (read.max() + chance) / 2 - ROUNDING), _first(used & (top > low))

    found = {name: Onset(None, reason=reason) for name, reason in reasons.items()}
    if None in reasons.values():
        generator = np.random.default_rng(seed)
        draws = [first(resample(curves.n, generator)) for _ in range(DRAWS)]
        point = first(np.full(curves.n, 1 / curves.n))
        for i, name in enumerate(reasons):
            if reasons[name] is None:
                ends = np.percentile([draw[i] for draw in draws], [2.5, 97.5], method="nearest").astype(int)
                places = (point[i], *ends)
                layer, low, high = (curves.layers[at] if at < len(curves.layers) else None for at in places)
                found[name] = Onset(layer, (low, high))
    floors = {"use": float(curves.floor.mean()), "availability": float(curves.majority.mean())}
    return Verdicts(floors, **found)


def _by_layer(curves: list[np.ndarray]) -> np.ndarray:
    return np.stack(curves, axis=1) if curves else np.empty((0, 0))  # (image, layer)


def _refusal(n: int, layers: Sequence[int]) -> str | None:
    if not layers:
        return "no layer from 0 on was asked for"
    if n < FEWEST:
        return f"{n} test images are too few; at least {FEWEST} are needed"
    return None


def _above(values: np.ndarray, floor: np.ndarray, looks: int = 1) -> bool:
    """Whether `values` are above `floor` on average, image by image, at 97.5% one-sided, the best of `looks` tries."""
    difference = values - floor
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() > NormalDist().inv_cdf(1 - 0.025 / looks) * error)


def resample(n: int, generator: np.random.Generator) -> np.ndarray:
    """Weights (n,) that sum to 1: how often each of `n` images is drawn, with replacement, as a share."""
    return np.bincount(generator.integers(n, size=n), minlength=n) / n


def _first(passed: np.ndarray) -> int:
    return int(passed.argmax()) if passed.any() else len(passed)
