"""Bootstrap intervals over images, for numbers that are not plain means."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.interventions import Seed, generator

DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A number with its 95% percentile interval.

    Attributes:
        value: on the images as they are; nan where it does not exist.
        low, high: 2.5% and 97.5% points over the draws in which it exists; nan if there are none.
        exists: share of draws in which it exists.
    """

    value: float
    low: float
    high: float
    exists: float = 1.0

    def __str__(self) -> str:
        if self.value != self.value:
            return "none"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def resamples(n: int, draws: int = DRAWS, seed: Seed = 0) -> Iterator[Int[Tensor, " n"]]:
    """Indices of `draws` samples of `n` images with replacement."""
    random = generator(seed)
    for _ in range(draws):
        yield torch.randint(n, (n,), generator=random)


def interval(
    statistic: Callable[[Float[Tensor, " columns"]], float],
    values: Float[Tensor, "n columns"],
    draws: int = DRAWS,
    seed: Seed = 0,
) -> Interval:
    """Interval of a function of the column means of `values`, one row per image, all columns resampled together."""
    values = values.double()
    means = torch.stack([values[index].mean(0) for index in resamples(len(values), draws, seed)])
    found = torch.tensor([statistic(mean) for mean in means], dtype=torch.float64)
    there = found[~found.isnan()]
    ends = (
        torch.quantile(there, torch.tensor([0.025, 0.975], dtype=torch.float64)) if len(there) else [float("nan")] * 2
    )
    return Interval(statistic(values.mean(0)), float(ends[0]), float(ends[1]), len(there) / draws)
