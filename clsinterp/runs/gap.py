"""Availability minus use as one number: the share of depth at which the label can be read and is not yet used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clsinterp.runs.by_image import ByImage
from clsinterp.runs.verdicts import DRAWS, resample, verdicts
from clsinterp.sweeps.columns import column


@dataclass(frozen=True)
class Gap:
    """The area between two curves, each on a scale from its floor (0) to its top (1).

    Attributes:
        value: the mean over layers of availability minus use; None where either has no scale.
        ci: its 95% interval over images.
        reason: why there is none.
    """

    value: float | None
    ci: tuple[float | None, float | None] = (None, None)
    reason: str | None = None


def gap(images: pa.Table, classes: Sequence[int], seed: int = 0) -> Gap:
    """The gap of a run.

    Availability at a layer is the probe's accuracy on the way from the share of the most frequent label to the best probe; use is
    what a swap costs as a share of what it could cost, intact accuracy minus the floor of use. These are the scales whose
    halves `clsinterp.runs.verdicts` looks for: a model whose label stands in the CLS token throughout and is used at the last
    of 12 layers only has a gap near 11/12, one that uses what can be read from the first layer on has 0. Layer -1 takes no part.

    Args:
        images: per-image ranks and answers, as a run writes them.
        classes: for each label of the data, the classifier's class.
        seed: of the 1000 bootstrap resamples of the images.
    """
    found = verdicts(images, classes, seed)
    if reason := found.decodable_from.reason or found.used_from.reason:
        return Gap(None, reason=reason)
    table = ByImage(images)
    layers = table.layers("shuffle")
    probe, shuffle = (np.stack([table.right(column(curve, x)) for x in layers], 1) for curve in ("probe", "shuffle"))
    intact, floor, majority = table.right("rank_intact"), table.following(classes), table.of_majority()

    def of(weights: np.ndarray) -> float:
        read, chance = weights @ probe, weights @ majority
        top, low = weights @ intact, weights @ floor
        available = (read - chance) / (read.max() - chance)
        used = (top - weights @ shuffle) / (top - low)
        return float((available - used).mean())

    generator = np.random.default_rng(seed)
    draws = [of(resample(table.n, generator)) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Gap(of(np.full(table.n, 1 / table.n)), (float(low), float(high)))
