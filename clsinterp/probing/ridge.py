"""Ridge probes for all layers at once, from sums that stream: no activation is stored.

A ridge regression on +-1 one-hot targets needs X'X, X'Y, the sums and the counts only. They add up over batches (so
memory does not grow with the data), over folds (so exact cross-validation and every alpha come from one pass) and over
machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.errors import RequestError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Penalties in units of the features' own scale, see `solve`.
ALPHAS: tuple[float, ...] = tuple(10.0**e for e in range(-12, 5))
CONSTANT = 1e-12  # share of the variance in the second moment below which features are constant but for rounding
FOLDS = 5


@dataclass(frozen=True, eq=False)  # tensors do not compare to one truth value
class RidgeStats:
    """Sufficient statistics of ridge regressions on the same labels, kept apart by fold.

    Example i of the stream belongs to fold ``i % n_folds``. Everything is float64. `zeros` begins a stream.

    Attributes:
        gram: X'X per fold and regression (layer).
        class_sums: the sum of the features of each class; targets are +1 for the label, -1 elsewhere.
        counts: examples of each class.
    """

    gram: Float[Tensor, "n_folds n_probes d d"]
    class_sums: Float[Tensor, "n_folds n_probes n_classes d"]
    counts: Float[Tensor, "n_folds n_classes"]

    @classmethod
    def zeros(
        cls, n_probes: int, d: int, n_classes: int, n_folds: int = FOLDS, device: str | torch.device = "cpu"
    ) -> RidgeStats:
        """Those of no example yet.

        Args:
            n_probes: how many regressions (layers).
            d: features of each.
            n_classes: number of classes.
            n_folds: folds of the cross-validation.
            device: where the sums live.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(n_folds, *shape, dtype=torch.float64, device=device)

        return cls(zeros(n_probes, d, d), zeros(n_probes, n_classes, d), zeros(n_classes))

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.gram)

    @property
    def n(self) -> int:
        """Examples seen."""
        return int(self.counts.sum())

    def update(
        self, x: Float[Tensor, "n_probes batch d"], labels: Int[Tensor, " batch"], index: Int[Tensor, " batch"]
    ) -> None:
        """Add a batch: its features, labels, and places in the stream (which give the folds)."""
        x, labels, fold = x.to(self.gram), labels.to(self.gram.device), index % self.n_folds
        for k in range(self.n_folds):
            rows = torch.nonzero(fold == k).flatten().to(x.device)
            part, of = x[:, rows], labels[rows]
            self.gram[k] += part.mT @ part
            _add_by_class(self.class_sums[k], of, part)
            self.counts[k].index_add_(0, of, torch.ones_like(of, dtype=torch.float64))

    def state(self) -> dict[str, Tensor]:
        """The sums by name, for saving; ``RidgeStats(**state)`` goes on from them."""
        return {"gram": self.gram.cpu(), "class_sums": self.class_sums.cpu(), "counts": self.counts.cpu()}

    def part(self, d: slice) -> RidgeStats:
        """The statistics of a slice of the features, such as the CLS half of a read-out."""
        return RidgeStats(self.gram[:, :, d, d], self.class_sums[..., d], self.counts)


def _add_by_class(
    sums: Float[Tensor, "n_probes n_classes d"], of: Int[Tensor, " batch"], x: Float[Tensor, "n_probes batch d"]
) -> None:
    """Add each example to the sum of its class, in an order that is the same every time."""
    if sums.device.type == "cpu":
        sums.index_add_(1, of, x)
    else:  # there index_add_ adds atomically, in any order, and a resumed run would differ in the last bits
        sums.transpose(0, 1).index_put_((of,), x.transpose(0, 1), accumulate=True)


@dataclass(frozen=True)
class Ridge:
    """Fitted ridge regressions.

    Attributes:
        weight, bias: one linear map per probe, float64.
        alpha: the penalty cross-validation chose for each, in the units of the Gram matrix.
        cv_error: mean squared error on held-out folds, per probe and alpha of the grid.
    """

    weight: Float[Tensor, "n_probes classes d"]
    bias: Float[Tensor, "n_probes classes"]
    alpha: Float[Tensor, " n_probes"]
    cv_error: Float[Tensor, "n_probes n_alphas"]

    @property
    def at_edge(self) -> list[bool]:
        """For each probe, whether the chosen penalty is the smallest or largest of the grid: a wider one may do better."""
        n = self.cv_error.shape[1]
        chosen = self.cv_error.argmin(1).tolist()
        spread = self.cv_error.amax(1) - self.cv_error.amin(1)
        tried = (spread > CONSTANT * self.cv_error.amax(1)).tolist()  # else there was nothing to choose by
        return [n > 1 and choice and i in (0, n - 1) for i, choice in zip(chosen, tried, strict=True)]

    def scores(self, x: Float[Tensor, "*rows d"], i: int) -> Float[Tensor, "*rows classes"]:
        """Scores of probe `i`, in float64."""
        weight = self.weight[i]
        return x.to(weight) @ weight.mT + self.bias[i]

    def to(self, device: torch.device) -> Ridge:
        """The same probes on `device`."""
        return Ridge(self.weight.to(device), self.bias.to(device), self.alpha, self.cv_error)


@dataclass(frozen=True)
class _Moments:
    """Sums over some examples, for one probe: X'X, X'Y, the sums of X and Y, the count."""

    gram: Float[Tensor, "d d"]
    cross: Float[Tensor, "d classes"]
    sum_x: Float[Tensor, " d"]
    sum_y: Float[Tensor, " classes"]
    n: float

    @classmethod
    def of(cls, stats: RidgeStats, folds: list[int], probe: int) -> _Moments:
        by_class, counts = stats.class_sums[folds, probe].sum(0), stats.counts[folds].sum(0)
        n = float(counts.sum())
        sum_x = by_class.sum(0)
        # Y is 2 onehot - 1, so X'Y = 2 (class sums)' - (sum of X) 1'
        return cls(stats.gram[folds, probe].sum(0), 2 * by_class.mT - sum_x.unsqueeze(1), sum_x, 2 * counts - n, n)

    @property
    def scale(self) -> Tensor:
        """The mean eigenvalue of the centred Gram matrix; of the uncentred one where the features are constant; or 1."""
        raw = self.gram.trace()
        centred = raw - self.sum_x @ self.sum_x / self.n
        scale = torch.where(centred > CONSTANT * raw, centred, raw) / len(self.gram)
        return torch.where(scale > 0, scale, torch.ones_like(scale))


def solve(stats: RidgeStats, alphas: tuple[float, ...] = ALPHAS) -> Ridge:
    """Fit every probe, its alpha chosen by exact k-fold cross-validation on squared error (not on accuracy).

    The penalties tried are `alphas` times the mean eigenvalue of the probe's centred Gram matrix, trace / d, so that one grid
    serves features of any scale: zoo/beit's CLS tokens have a standard deviation of .02 at its first layer.

    One eigendecomposition per probe and fold serves every alpha: with Q L Q' the centred Gram matrix of the training
    folds, W(a) = Q (L + a)^-1 Q'X'Y, and the held-out error is a quadratic form in 1 / (L + a).

    Raises:
        RequestError: fewer than two examples in the training part of a fold.
    """
    if stats.n < 2:
        raise RequestError(f"{stats.n} training images were given; a probe needs at least 2.")
    relative = torch.tensor(alphas, dtype=torch.float64, device=stats.gram.device)
    folds = [k for k in range(stats.n_folds) if stats.counts[k].sum() > 0]
    weights, biases, chosen, errors = [], [], [], []
    for i in range(stats.gram.shape[1]):
        grid = relative * _Moments.of(stats, folds, i).scale
        if len(folds) > 1:
            error = torch.stack(
                [
                    _held_out_error(
                        _Moments.of(stats, [f for f in folds if f != k], i), _Moments.of(stats, [k], i), grid
                    )
                    for k in folds
                ]
            ).mean(0)
        else:
            error = torch.zeros_like(grid)
        alpha = grid[error.argmin()]
        weight, bias = _fit(_Moments.of(stats, folds, i), alpha)
        weights.append(weight)
        biases.append(bias)
        chosen.append(alpha)
        errors.append(error)
    return Ridge(torch.stack(weights), torch.stack(biases), torch.stack(chosen), torch.stack(errors))


def _eigen(m: _Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and vectors of the centred Gram matrix, and the centred X'Y in that basis."""
    mean_x = m.sum_x / m.n
    values, vectors = torch.linalg.eigh(m.gram - torch.outer(m.sum_x, mean_x))
    return values.clamp(min=0), vectors, vectors.mT @ (m.cross - torch.outer(mean_x, m.sum_y))


def _fit(m: _Moments, alpha: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors, cross = _eigen(m)
    weight = (vectors @ (cross / (values + alpha).unsqueeze(1))).mT
    return weight, m.sum_y / m.n - weight @ (m.sum_x / m.n)


def _held_out_error(train: _Moments, test: _Moments, grid: Tensor) -> Float[Tensor, " n_alphas"]:
    """Mean squared error on `test` of the ridge fitted on `train`, for every alpha of `grid`."""
    values, q, cross = _eigen(train)
    mx, my = train.sum_x / train.n, train.sum_y / train.n
    # moments of the held-out examples about the training means
    gram = test.gram - torch.outer(mx, test.sum_x) - torch.outer(test.sum_x, mx) + test.n * torch.outer(mx, mx)
    xy = test.cross - torch.outer(mx, test.sum_y) - torch.outer(test.sum_x, my) + test.n * torch.outer(mx, my)
    yy = test.n * len(my) - 2 * my @ test.sum_y + test.n * my @ my
    inverse = 1 / (values + grid.unsqueeze(1))  # (alpha, d)
    linear = inverse @ (cross * (q.mT @ xy)).sum(1)
    quadratic = ((inverse @ ((q.mT @ gram @ q) * (cross @ cross.mT))) * inverse).sum(1)
    return (yy - 2 * linear + quadratic) / (test.n * len(my))
