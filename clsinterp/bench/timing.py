"""Two sides timed in turn, as a ratio with its spread."""

import math
import operator
import os
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

    @classmethod
    def missing(cls, what: str, why: str, target: str) -> "Row":
        """A line that was not measured; `why` says what it takes that is not here."""
        none = math.nan
        return cls(what, why, none, none, none, none, none, "", target)

    @property
    def span(self) -> str:
        """The ratio with its range, as tables show it; nothing where it was not measured."""
        if math.isnan(self.ratio):
            return ""
        return f"{self.ratio:.2f}" + (f" ({self.low:.2f}-{self.high:.2f})" if self.high > self.low else "")

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one, and where nothing was measured."""
        if not self.target or math.isnan(self.ratio):
            return None
        sign, bound = self.target.split()
        return COMPARE[sign](self.ratio, float(bound))


def processor_seconds() -> float:
    """Processor time of this process, its threads, and the processes that it started and that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """What one call takes by `clock`."""
    start = clock()
    function()
    return clock() - start


def compare(
    what: str,
    against: str,
    target: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    repeats: int,
    scale: float = 1.0,
    clock: Callable[[], float] = processor_seconds,
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
        clock: what seconds are counted by. Processor time hardly changes when others use the machine too;
            ``time.perf_counter``, the wall's, is for what is about waiting: a command's start, worker processes.
    """
    ours(), theirs()
    pairs = [(seconds(ours, clock), scale * seconds(theirs, clock)) for _ in range(repeats)]
    costs = target.startswith("<")
    ratios = [a / b if costs else b / a for a, b in pairs]
    unit = "CPU s" if clock is processor_seconds else "s"
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Row(what, against, statistics.median(ratios), min(ratios), max(ratios), mine, other, unit, target)
