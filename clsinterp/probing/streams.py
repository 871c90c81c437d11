"""Ridge probes and classifiers fitted on a stream of features."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.family import Family
from clsinterp.models.placement import exact
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import FOLDS, Ridge, RidgeStats, solve

Features = Iterable[tuple[Float[Tensor, "n_probes batch d"], Int[Tensor, " batch"]]]


def statistics(features: Features, n_classes: int, n_folds: int = FOLDS) -> RidgeStats:
    """The sums of a stream of (features, labels), one regression for each entry of the first axis; formed where those are.

    Raises:
        RequestError: an empty stream.
    """
    stats, seen = None, 0
    for x, labels in features:
        stats = stats or RidgeStats.zeros(x.shape[0], x.shape[2], n_classes, n_folds, exact(x.device))
        stats.update(x, labels.cpu(), torch.arange(seen, seen + len(labels)))
        seen += len(labels)
    if stats is None:
        raise RequestError("no training images were given; a probe needs at least 2.")
    return RidgeStats(**stats.state())


def fit_ridge(features: Features, n_classes: int, n_folds: int = FOLDS) -> Ridge:
    """Ridge probes, one for each entry of the first axis, from a stream of (features, labels).

    Raises:
        RequestError: an empty stream.
    """
    return solve(statistics(features, n_classes, n_folds))


def fit_head(
    features: Iterable[tuple[Float[Tensor, "batch d_readout"], Tensor]], family: Family, n_classes: int
) -> Head:
    """A classifier on a family's read-out features, laid out as the family's own: one map, or one per read-out (DeiT)."""
    parts = len(family.readouts) if family.averages_heads else 1
    ridge = fit_ridge(((torch.stack(x.chunk(parts, dim=-1)), y) for x, y in features), n_classes)
    return Head(tuple(ridge.weight), tuple(ridge.bias), family.readouts, own=False)
