"""Availability minus use as one number: the share of depth at which the label can be read and is not yet used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clsinterp.runs.verdicts import DRAWS, Curves, resample


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
    curves = Curves.of(images, classes)
    if reason := next(filter(None, curves.reasons().values()), None):
        return Gap(None, reason=reason)

    def of(weights: np.ndarray) -> float:
        read, chance = weights @ curves.probe, weights @ curves.majority
        top, low = weights @ curves.intact, weights @ curves.floor
        available = (read - chance) / (read.max() - chance)
        used = (top - weights @ curves.shuffle) / (top - low)
        return float((available - used).mean())

    generator = np.random.default_rng(seed)
    draws = [of(resample(curves.n, generator)) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Gap(of(np.full(curves.n, 1 / curves.n)), (float(low), float(high)))
