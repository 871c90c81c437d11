"""LEACE: take a label out of tokens linearly and change them as little as that allows, from the sums a ridge probe needs.

Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form" (arXiv 2306.03819). With S the covariance of the
tokens x and M their covariance with one-hot labels, W = S^(-1/2) (pseudo-inverse) and U an orthonormal basis of the columns
of W M, the eraser is r(x) = x - P (x - mean) with P = W^+ U U' W. Then r(x) has no covariance with the label on the
training images, so no affine reader of any kind does better there than the best constant; and of all affine maps of which
that is true, r moves the tokens least in mean square. P is an oblique projector onto the differences of the class means.

Where tokens are hardly more than their dimensions, W is fitted to noise and the label comes back on new images. So a
penalty may stand beside the covariance, S + penalty / n. Erasure on the training images stays perfect, since P M = M
whatever W is; what is given up is the least change there. With the penalty of a ridge probe P has the probe's row space as its
own: the probe reads the same from every erased token, of new images too.

What is not taken out: whatever is in the tokens but no affine map reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.interventions import Seed, generator
from clsinterp.probing.ridge import CONSTANT

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.probing.ridge import RidgeStats

UNCORRELATED = 1e-8  # canonical correlations below are rounding


@dataclass(frozen=True, eq=False)  # tensors do not compare to one truth value
class Eraser:
    """A fitted eraser, float64; applied to tokens of any type, which keep theirs.

    Attributes:
        left: W^+ U, the directions along which tokens are moved; the most correlated with the label first.
        right: U' W, what is read of a token; its rows solve the generalised eigenproblem B v = c^2 (S + penalty / n) v,
            with B the covariance between class means: the discriminant directions, in falling order of c.
        mean: of the training tokens, to which the erased part goes.
        correlation: the canonical correlations c with the label (with a penalty: what it leaves of them); not kept in files.
    """

    left: Float[Tensor, "d rank"]
    right: Float[Tensor, "rank d"]
    mean: Float[Tensor, " d"]
    correlation: Float[Tensor, " rank"] | None = None

    def __call__(self, tokens: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The tokens without the label."""
        return (tokens.to(self.mean) - self.component(tokens.to(self.mean) - self.mean)).to(tokens)

    def component(self, tokens: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """P x: the part of tokens (or of their differences) that erasure takes away."""
        return (tokens.to(self.mean) @ self.right.mT @ self.left.mT).to(tokens)

    def to(self, device: torch.device) -> Eraser:
        """The same eraser on `device`."""
        return Eraser(self.left.to(device), self.right.to(device), self.mean.to(device), self.correlation)


def leace(stats: RidgeStats, probe: int, penalty: float = 0.0) -> Eraser:
    """The eraser of the label from the features of regression `probe`.

    Directions in which the variance is below `CONSTANT` of the tokens' mean square are rounding, and canonical correlations
    below `UNCORRELATED` are too; both are left alone. Where nothing is correlated, nothing is erased.

    Args:
        stats: sums over the training images.
        probe: which of its regressions (layers).
        penalty: added to the eigenvalues of the centred Gram matrix, in the unit of `Ridge.alpha`; 0 is LEACE as published.

    Raises:
        RequestError: fewer than two training images.
    """
    mean, axes, scale = whitening(stats, probe, penalty)
    cross = moments(stats, probe)[2]
    share = stats.counts.sum(0) / stats.n
    # Columns divided by sqrt(share) span the same, and make the singular values canonical correlations.
    whitened = (axes.mT @ cross) / scale.unsqueeze(1) / torch.where(share > 0, share, torch.ones_like(share)).sqrt()
    u, correlation, _ = torch.linalg.svd(whitened, full_matrices=False)
    kept = correlation > UNCORRELATED
    return _eraser(mean, axes, scale, u[:, kept], correlation[kept])


def erased(stats: RidgeStats, probe: int, eraser: Eraser) -> RidgeStats:
    """The sums of the erased features of regression `probe`, from those of the features: no further pass.

    Erasing is r(x) = A x + b with A = 1 - P and b = P mean, so the sum of r over some examples is A s + n b, and that of
    r r' is A G A' + (A s) b' + b (A s)' + n b b', with s and G the sums of x and x x' and n the count.

    Returns:
        Statistics of one regression, with the folds of `stats`.
    """
    keep = torch.eye(len(eraser.mean)).to(eraser.left) - eraser.left @ eraser.right
    offset = eraser.component(eraser.mean)
    by_class = stats.class_sums[:, probe] @ keep.mT  # (fold, class, d), the offset still left out
    moved = by_class.sum(1, keepdim=True).mT * offset  # (fold, d, d): (A s) b'
    n = stats.counts.sum(1)[:, None, None]
    gram = keep @ stats.gram[:, probe] @ keep.mT + moved + moved.mT + n * torch.outer(offset, offset)
    sums = by_class + stats.counts.unsqueeze(-1) * offset
    return replace(stats, gram=gram.unsqueeze(1), class_sums=sums.unsqueeze(1))


def at_random(stats: RidgeStats, probe: int, rank: int, penalty: float = 0.0, seed: Seed = 0) -> Eraser:
    """An eraser of something that has nothing to do with the label: as many directions, drawn at random.

    They are uniform among the whitened tokens, which is what `leace` finds for labels drawn by lot: what erasing costs even
    where it takes no information away that matters.

    Args:
        stats, probe, penalty: as for `leace`.
        rank: how many directions.
        seed: of the draw.
    """
    mean, axes, scale = whitening(stats, probe, penalty)
    draw = torch.randn(len(scale), min(rank, len(scale)), generator=generator(seed), dtype=torch.float64)
    u = torch.linalg.qr(draw.to(axes.device))[0]
    return _eraser(mean, axes, scale, u, torch.zeros(u.shape[1], dtype=u.dtype, device=u.device))


def whitening(
    stats: RidgeStats, probe: int, penalty: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d varying"], Float[Tensor, " varying"]]:
    """The mean; the axes (columns) of the covariance along which tokens vary; their deviations, with the penalty."""
    if stats.n < 2:
        raise RequestError(f"{stats.n} training images were given; erasing a label needs at least 2.")
    mean, covariance, _ = moments(stats, probe)
    second_moment = stats.gram[:, probe].sum(0).trace() / stats.n
    variance, axes = torch.linalg.eigh(covariance)
    varies = variance > CONSTANT * second_moment
    return mean, axes[:, varies], (variance[varies] + penalty / stats.n).sqrt()


def _eraser(mean: Tensor, axes: Tensor, scale: Tensor, u: Tensor, correlation: Tensor) -> Eraser:
    """Of the whitened directions `u`."""
    return Eraser(axes @ (u * scale.unsqueeze(1)), (axes @ (u / scale.unsqueeze(1))).mT, mean, correlation)


def moments(
    stats: RidgeStats, probe: int
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"], Float[Tensor, "d classes"]]:
    """Mean, covariance, and covariance with one-hot labels, of the features of regression `probe` (divided by n)."""
    n, by_class = stats.n, stats.class_sums[:, probe].sum(0)
    mean = by_class.sum(0) / n
    cross = by_class.mT - torch.outer(mean, stats.counts.sum(0))
    return mean, stats.gram[:, probe].sum(0) / n - torch.outer(mean, mean), cross / n
