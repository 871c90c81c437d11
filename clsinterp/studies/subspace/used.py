"""The smallest subspace that does what the whole token does: chosen on half of the images, measured on the other half."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.probing.metrics import mean_interval
from clsinterp.runs.verdicts import FEWEST
from clsinterp.studies.donors.bootstrap import Interval, interval

ENOUGH = 0.95  # of the full swap's effect
DECIDING = 20  # images that the full swap must turn to the donor: 5% of fewer is less than one


@dataclass(frozen=True)
class Used:
    """How many directions a swap needs at one layer.

    Attributes:
        rank: the first rank of the ladder with `ENOUGH` of the effect on the choosing half; None where nothing can be said.
        dips: higher ranks of the ladder that have less than that again.
        reason: why nothing can be said.
    """

    rank: int | None
    dips: tuple[int, ...] = ()
    reason: str | None = None


def refusal(full: Float[Tensor, " n"]) -> str | None:
    """Why no rank can be said, from each image's gain under the full swap; None where one can.

    A gain is 1 where the output names the donor's label and did not before, -1 the other way round, else 0.
    """
    if len(full) < FEWEST:
        return f"{len(full)} images to choose on are too few; at least {FEWEST} are needed"
    turned = int((full > 0).sum())
    if mean_interval(full)[0] <= 0:
        return f"the full swap has no effect: it turns {turned} of {len(full)} images to the donor's label"
    if turned < DECIDING:
        return (
            f"the full swap turns {turned} of {len(full)} images to the donor's label; at least {DECIDING} are needed"
        )
    return None


def smallest(partial: Mapping[int, Float[Tensor, " n"]], full: Float[Tensor, " n"], d: int) -> Used:
    """The first rank with `ENOUGH` of the full swap's mean gain. Gains need not rise with the rank: every one is tried.

    Args:
        partial: rank -> gain of each image under the swap of as many directions, ranks rising.
        full: gains under the full swap.
        d: the rank at which the swap is the full one.
    """
    if reason := refusal(full):
        return Used(None, reason=reason)
    bar = ENOUGH * float(full.mean()) - 1e-9  # exactly 95% counts
    rank = next((n for n, gain in partial.items() if float(gain.mean()) >= bar), d)
    return Used(rank, tuple(n for n, gain in partial.items() if n > rank and float(gain.mean()) < bar))


def share(partial: Float[Tensor, " n"], full: Float[Tensor, " n"], seed: int = 0) -> Interval:
    """The partial swap's mean gain as a share of the full one's, with a bootstrap interval over images."""

    def ratio(mean: Tensor) -> float:
        return float(mean[0] / mean[1]) if float(mean[1]) > 0 else float("nan")

    return interval(ratio, torch.stack([partial, full], dim=1), seed=seed)
