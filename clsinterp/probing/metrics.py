"""Ranks, and everything that follows from them: accuracy, top-k, identifiability, intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Z95 = 1.959963984540054


def ranks(logits: Float[Tensor, "*rows classes"], labels: Int[Tensor, " *rows"]) -> Int[Tensor, " *rows"]:
    """0-based rank of each row's label by descending logit; ties go to the lower class index.

    Counts the logits above the label's instead of sorting. NaN is below every number, and a label whose own logit is NaN
    comes last: a row of NaN is never right.

    Example:
        >>> ranks(torch.tensor([[3.0, 5.0, 5.0]]), torch.tensor([2])).tolist()
        [1]
    """
    labels = labels.to(logits.device)
    own = logits.gather(-1, labels.unsqueeze(-1))
    before = torch.arange(logits.shape[-1], device=logits.device) < labels.unsqueeze(-1)
    rank = (logits > own).sum(-1) + ((logits == own) & before).sum(-1)
    return torch.where(own.squeeze(-1).isnan(), logits.shape[-1] - 1, rank)


def identifiability(rank: Int[Tensor, " n"], n_classes: int) -> Float[Tensor, " n"]:
    """1 - rank / C (Vilas et al. 2023): 1 for the top class, 1/C for the last; about 0.5 at chance."""
    return 1 - rank.double() / n_classes


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95% Wilson score interval of a proportion.

    Example:
        >>> [round(x, 3) for x in wilson(8, 10)]
        [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At p = 0 and 1 the exact bound is p itself; without this, rounding can put it a hair on the wrong side.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def mean_interval(values: Float[Tensor, " n"], low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """95% normal interval of a mean, kept between `low` and `high` where values cannot lie outside."""
    m = float(values.mean())
    half = Z95 * float(values.std(unbiased=True)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return max(low, m - half), min(high, m + half)
