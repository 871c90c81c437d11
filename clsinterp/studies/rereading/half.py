"""Between which layers the CLS token reads what the output uses: where knock-outs cost half of never reading."""

from collections.abc import Sequence

import numpy as np
import torch

from clsinterp.probing.metrics import mean_interval
from clsinterp.runs.verdicts import DRAWS, FEWEST, ROUNDING, Onset, resample
from clsinterp.studies.rereading.measure import Measured
from clsinterp.studies.tidy import Rows

CURVES = ("half_read_until", "half_read_from")


def half_read(found: Measured, layers: Sequence[int], seed: int = 0, which: str = "") -> tuple[Onset, Onset]:
    """The first layer whose ``knock_until`` costs half of never reading, and the last whose ``knock_from`` does.

    The intervals are of 1000 resamples of the images, each with its own half. Neither is given below 100 images, or where never
    reading, ``knock_until`` the last layer, costs nothing beyond its 95% interval (paired).

    Args:
        found: what was seen of the test images.
        layers: every layer of the model.
        seed: of the resamples.
        which: empty for the output, or ``_cls_only``.
    """
    intact = _right(found, "intact", [None], which)[:, 0]
    until, since = (_right(found, f"knock_{name}", layers, which) for name in ("until", "from"))
    if reason := _refusal(intact - until[:, -1]):
        return Onset(None, reason=reason), Onset(None, reason=reason)

    def places(weights: np.ndarray) -> tuple[int, int]:
        """Of the two layers, for image weights that sum to 1; ``len(layers)`` is never."""
        lost, gone = weights @ (intact[:, None] - until), weights @ (intact[:, None] - since)
        if lost[-1] <= 0:
            return len(layers), len(layers)
        bar = lost[-1] / 2 - ROUNDING
        # Without block 0 and all after it nothing is ever read, so there always is a last one.
        return int((lost >= bar).argmax()), int(np.flatnonzero(gone >= bar)[-1])

    generator = np.random.default_rng(seed)
    drawn = [places(resample(len(intact), generator)) for _ in range(DRAWS)]
    point = places(np.full(len(intact), 1 / len(intact)))
    ends = np.percentile(drawn, [2.5, 97.5], axis=0, method="nearest").astype(int)
    named = [*layers, None]
    first, last = (Onset(named[point[i]], (named[ends[0, i]], named[ends[1, i]])) for i in (0, 1))
    return first, last


def add_halves(rows: Rows, found: Measured, layers: Sequence[int], seed: int = 0) -> tuple[Onset, Onset]:
    """A row for each of the two layers, of the output and of the CLS read-out alone, if there are any; returns the output's."""
    intact = ("intact", None)
    halves = {w: half_read(found, layers, seed, w) for w in ("", "_cls_only") if (intact, f"rank{w}") in found.seen}
    n = len(found.value(intact, "rank"))
    for which, onsets in halves.items():
        for curve, onset in zip(CURVES, onsets, strict=True):
            if onset.layer is not None:
                rows.add(onset.layer, *onset.ci, n, curve=f"{curve}{which}", metric="layer", layer=None)
    return halves[""]


def in_words(onsets: tuple[Onset, Onset]) -> str:
    """`half_read` of the output, for the line under the study's table."""
    first, last = onsets
    if first.reason:
        return f"no layer by which half was read: {first.reason}"
    return f"half of what never reading costs is lost without blocks 0 to {first}, and without those from {last} on"


def _right(found: Measured, curve: str, layers: Sequence[int | None], which: str) -> np.ndarray:
    """Which images are right under a curve, (image, layer)."""
    return torch.stack([found.value((curve, x), f"rank{which}") == 0 for x in layers], dim=1).double().numpy()


def _refusal(lost: np.ndarray) -> str | None:
    if len(lost) < FEWEST:
        return f"{len(lost)} test images are too few; at least {FEWEST} are needed"
    if mean_interval(torch.from_numpy(lost))[0] <= 0:
        return f"never reading costs nothing beyond its interval ({lost.mean():.3f})"
    return None
