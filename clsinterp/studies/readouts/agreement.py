"""How alike several classifiers of the same images are: same answer, same ranking, right or wrong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scores = Float[Tensor, "readers n classes"]


def same_answer(scores: Scores) -> Float[Tensor, "readers readers"]:
    """Share of images on which two readers have the same arg-max."""
    answers = scores.argmax(-1)
    return (answers.unsqueeze(0) == answers.unsqueeze(1)).double().mean(-1)


def rank_correlation(scores: Scores) -> Float[Tensor, "readers readers"]:
    """Spearman's correlation of two readers' scores over the classes, image by image, averaged over images.

    Equal scores are ranked by class index; scores of real images do not tie.
    """
    ranks = scores.double().argsort(stable=True, dim=-1).argsort(stable=True, dim=-1).double()
    ranks = ranks - ranks.mean(-1, keepdim=True)
    unit = ranks / ranks.norm(dim=-1, keepdim=True)
    return torch.einsum("anc,bnc->ab", unit, unit) / scores.shape[1]


@dataclass(frozen=True)
class Together:
    """Joint correctness of every pair of readers, shares of images, (readers, readers) each.

    Attributes:
        both, neither: right together, wrong together.
        either: exactly one is right.
        phi: correlation of being right; 0 where errors fall independently of each other, nan for a reader that is
            always right or always wrong.
    """

    both: Tensor
    neither: Tensor
    either: Tensor
    phi: Tensor


def together(right: Bool[Tensor, "readers n"]) -> Together:
    """Joint correctness of every pair of readers."""
    x = right.double()
    n = x.shape[1]
    both, neither = x @ x.mT / n, (1 - x) @ (1 - x).mT / n
    p = x.mean(1)
    spread = (p * (1 - p)).sqrt()
    phi = (both - torch.outer(p, p)) / torch.outer(spread, spread)
    return Together(both, neither, 1 - both - neither, phi)


def compare(scores: Scores, right: Bool[Tensor, "readers n"]) -> dict[str, Float[Tensor, "readers readers"]]:
    """All of the above by name."""
    pair = together(right)
    return {
        "same answer": same_answer(scores),
        "rank correlation": rank_correlation(scores),
        "both right": pair.both,
        "both wrong": pair.neither,
        "one right": pair.either,
        "phi": pair.phi,
    }


def grid(pairs: Sequence[Mapping[str, Any]], name: str, n: int) -> list[list[float]]:
    """One of `compare`'s as rows of numbers, 1 between a reader and itself.

    Args:
        pairs: rows with ``layer``, ``other`` and `name`, for each pair of readers once.
        name: of the column.
        n: readers.
    """
    value = {(row["layer"], row["other"]): row[name] for row in pairs}
    return [[1.0 if i == j else value[min(i, j), max(i, j)] for j in range(n)] for i in range(n)]


def averages(scores: Scores) -> Scores:
    """Entry k: the average of the last k + 1 readers' scores, each image's scores first brought to mean 0 and norm 1.

    Ridge scores of different layers differ in scale, since the penalty shrinks weak probes; unscaled, the strong ones
    would count for more than their share.
    """
    centred = scores.double() - scores.double().mean(-1, keepdim=True)
    unit = centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit.flip(0).cumsum(0) / torch.arange(1, len(unit) + 1, dtype=unit.dtype).view(-1, 1, 1)
