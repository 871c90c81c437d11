"""Two sides timed in turn, as a ratio with its spread."""

import operator
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Row:
    """One line of the bench.

    Attributes:
        what: what is measured.
        against: what it is compared with.
        ratio: the median over repeats; `low` and `high` its range.
        ours, theirs: medians of the two sides, in `unit`.
        target: the bound that `ratio` should keep, such as ``>= 1.8``; empty where none was set.
    """

    what: str
    against: str
    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    unit: str
    target: str

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        sign, bound = self.target.split()
        return COMPARE[sign](self.ratio, float(bound))


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(
    what: str,
    against: str,
    target: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repeats: int,
    scale: float = 1.0,
) -> Row:
    """Time both sides in turn, after a warm-up of each.

    The ratio is theirs / ours (how many times faster) where the target is a lower bound, ours / theirs (what it costs)
    where it is an upper one. Each repeat gives a ratio of its own, so that a machine that slows down slows both.

    Args:
        what: see `Row`.
        against: see `Row`.
        target: see `Row`.
        ours: the side of this package.
        theirs: the other side.
        repeats: how many pairs are timed.
        scale: multiplies the time of `theirs`, where only a part of it is run.
    """
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), scale * seconds(theirs)) for _ in range(repeats)]
    costs = target.startswith("<")
    ratios = [a / b if costs else b / a for a, b in pairs]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Row(what, against, statistics.median(ratios), min(ratios), max(ratios), mine, other, "s", target)
