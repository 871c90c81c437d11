"""How a run is cut into units of work, and in which order their sums are added: from counts alone, so alike everywhere.

A unit is a stage and a range of batches, and its result is one file. Who computes a unit, when, and beside how many
others is left open; that is what makes shards, engines and resuming one thing. What is not left open is the order of
floating-point additions: within a unit batches are added in their order, and units are added along one fixed binary
tree (`ancestors`). Sums are therefore the same to the last bit however a run is split.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from clsinterp.errors import RequestError

STAGES = ("train", "solve", "test")  # in the order in which they depend on each other
LEAST_TRAIN_UNITS = 32  # if there are that many batches: what a crash can lose of the train pass
MOST_TEST_UNITS = 512
Range = tuple[int, int]
Sum = TypeVar("Sum")


@dataclass(frozen=True)
class Unit:
    """One piece of work: the batches `start` to `stop` - 1 of a stage, or one regression of the stage ``solve``."""

    stage: str
    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """Part `index` of `of`, counted from 1."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """``3/16`` -> part 3 of 16.

        Raises:
            RequestError: not of that form, or out of range.

        Example:
            >>> Shard.parse("3/16")
            Shard(index=3, of=16)
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise RequestError(f"shard={text!r} was given; I/N is expected, counted from 1: 1/16, 2/16, .. 16/16.")
        return cls(int(found[1]), int(found[2]))

    def part(self, units: list[Unit]) -> list[Unit]:
        """This shard's share of `units`: contiguous, sizes differ by one at most."""
        return units[(self.index - 1) * len(units) // self.of : self.index * len(units) // self.of]

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


@dataclass(frozen=True)
class Layout:
    """How a run is cut.

    Attributes:
        n_train, n_test: images.
        batch_size: images per batch.
        solves: regressions to fit when the train pass is done, by name.
        train_step, test_step: batches per unit.
    """

    n_train: int
    n_test: int
    batch_size: int
    solves: tuple[str, ...]
    train_step: int
    test_step: int

    @classmethod
    def of(cls, n_train: int, n_test: int, batch_size: int, solves: tuple[str, ...], statistics_per_image: float):
        """The layout for these counts.

        A unit's file of ridge statistics does not grow with its images, so a train unit has at least as many images
        as make their own activations larger than that file, unless the train pass is short.

        Args:
            n_train, n_test, batch_size, solves: as the attributes.
            statistics_per_image: size of the ridge statistics over the size of one image's activations.
        """
        train_batches, test_batches = -(-n_train // batch_size), -(-n_test // batch_size)
        wanted = -(-int(statistics_per_image) // batch_size)
        train_step = max(1, min(wanted, train_batches // LEAST_TRAIN_UNITS))
        return cls(n_train, n_test, batch_size, solves, train_step, max(1, -(-test_batches // MOST_TEST_UNITS)))

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Layout":
        """The layout written as JSON in a run folder."""
        return cls(**{**value, "solves": tuple(value["solves"])})

    @cached_property
    def _units(self) -> dict[str, list[Unit]]:
        units = {"solve": [Unit("solve", i, i, i + 1) for i in range(len(self.solves))]}
        for stage, n, step in (("train", self.n_train, self.train_step), ("test", self.n_test, self.test_step)):
            batches = -(-n // self.batch_size)
            starts = range(0, batches, step)
            units[stage] = [Unit(stage, i, start, min(start + step, batches)) for i, start in enumerate(starts)]
        return units

    def units(self, stage: str, shard: Shard | None = None) -> list[Unit]:
        """All units of `stage`, or those of one shard."""
        return self._units[stage] if shard is None else shard.part(self._units[stage])

    def n_images(self, units: Collection[Unit]) -> int:
        """Images in `units` of the train or test stage."""
        n = {"train": self.n_train, "test": self.n_test}
        return sum(min(u.stop * self.batch_size, n[u.stage]) - u.start * self.batch_size for u in units)

    def place(self, unit: Unit) -> int:
        """A number that no other unit of the run has."""
        return sum(len(self.units(stage)) for stage in STAGES[: STAGES.index(unit.stage)]) + unit.index

    def files(self, unit: Unit) -> list[str]:
        """Names of the files any of which says that `unit` is done, its own first."""
        if unit.stage == "train":
            return [sum_file(part) for part in ancestors(unit.index, len(self.units("train")))]
        return [f"{unit.stage}-{unit.index:05d}.{'parquet' if unit.stage == 'test' else 'safetensors'}"]

    @property
    def total(self) -> str:
        """Name of the file with the ridge statistics of the whole train pass."""
        return sum_file((0, len(self.units("train"))))


# -- the summation tree ------------------------------------------------------------


def sum_file(units: Range) -> str:
    """Name of the file with the summed statistics of units ``units[0]`` to ``units[1] - 1``."""
    return f"train-{units[0]:05d}-{units[1]:05d}.safetensors"


def halves(units: Range) -> tuple[Range, Range]:
    """The two ranges whose sums are added to give that of `units`: the first is the largest power of two that leaves one.

    Example:
        >>> halves((0, 5)), halves((4, 6))
        (((0, 4), (4, 5)), ((4, 5), (5, 6)))
    """
    start, stop = units
    middle = start + (1 << (stop - start - 1).bit_length() - 1)
    return (start, middle), (middle, stop)


def ancestors(unit: int, n: int) -> list[Range]:
    """The ranges of the tree over `n` units that hold `unit`, from itself to all of them.

    Example:
        >>> ancestors(2, 5)
        [(2, 3), (2, 4), (0, 4), (0, 5)]
    """
    ranges = [(0, n)]
    while ranges[-1] != (unit, unit + 1):
        left, right = halves(ranges[-1])
        ranges.append(left if unit < left[1] else right)
    return ranges[::-1]


def parent(units: Range, n: int) -> Range | None:
    """The range of the tree over `n` units that `units` is a half of; None for the whole.

    Example:
        >>> parent((2, 3), 5), parent((0, 4), 5), parent((0, 5), 5)
        ((2, 4), (0, 5), None)
    """
    return next((both for both in ancestors(units[0], n)[1:] if units in halves(both)), None)


def tree_sum(units: Range, known: Callable[[Range], Sum | None], add: Callable[[Sum, Sum], Sum]) -> Sum:
    """The sum over `units` in the order of the tree, from whichever sums of its ranges are `known`.

    Raises:
        LookupError: a unit of which nothing is known.
    """
    found = known(units)
    if found is not None:
        return found
    if units[1] - units[0] == 1:
        raise LookupError(f"unit {units[0]} of the train pass is missing")
    left, right = halves(units)
    return add(tree_sum(left, known, add), tree_sum(right, known, add))
