"""Subspaces of the CLS token by what can be read in them, and swaps that are kept to one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.interventions import Seed, TokenEdit, generator
from clsinterp.probing.leace import Eraser, leace, moments, whitening
from clsinterp.probing.ridge import RidgeStats

DENSE = 8  # ranks up to here are all on the ladder; beyond, two to a doubling
PLAIN, WHITENED = "plain", "whitened"  # inner products


@dataclass(frozen=True, eq=False)
class Directions:
    """All directions of token space, those that tell classes apart first, under two inner products.

    The first `rank` (one less than there are classes, where enough varies) are the v that solve the generalised eigenproblem
    B v = c^2 (S + penalty / n) v in falling order of c: B is the covariance between class means, S that of the tokens (which
    orders them as B against the covariance within classes does), the penalty the ridge probe's. They span the probe's row
    space. A token's part in the first n of them is taken in two ways.

    - ``plain``: by the orthogonal projector, in token space as it is, onto the span of the v. What follows after the first
      `rank` are the principal axes of what S is outside them.
    - ``whitened``: by the projector that is orthogonal in the inner product of (S + penalty / n)^-1: what the v read is moved
      along (S + penalty / n) v, the way in which tokens differ that read differently. With n = `rank` that is LEACE's
      component. What follows are the directions uncorrelated with those before, the most variance first.

    Attributes:
        basis: orthonormal columns of the plain order.
        left, right: of the whitened order: the part in the first n is left[:, :n] @ right[:n] @ x.
        rank: of the probe's row space.
        eraser: LEACE with the same penalty.
    """

    basis: Float[Tensor, "d d"]
    left: Float[Tensor, "d varying"]
    right: Float[Tensor, "varying d"]
    rank: int
    eraser: Eraser

    @classmethod
    def of(cls, stats: RidgeStats, layer: int, penalty: float) -> "Directions":
        """From the sums of a train pass.

        Args:
            stats: sums.
            layer: which of its regressions.
            penalty: of the layer's probe.
        """
        eraser = leace(stats, layer, penalty)
        rank = len(eraser.right)
        unit = eraser.right / eraser.right.norm(dim=1, keepdim=True)
        basis = _completed(unit.mT, moments(stats, layer)[1])
        _, axes, scale = whitening(stats, layer, penalty)
        u = _completed((axes.mT @ eraser.left) / scale.unsqueeze(1), torch.diag(scale**2))
        return cls(basis, axes @ (u * scale.unsqueeze(1)), (axes @ (u / scale.unsqueeze(1))).mT, rank, eraser)

    def first(self, n: int, inner: str = PLAIN) -> TokenEdit:
        """The projector onto the first `n` directions."""
        if inner == PLAIN:
            return onto(self.basis[:, :n])
        left, right = self.left[:, :n], self.right[:n]
        return lambda tokens: (tokens.to(right) @ right.mT @ left.mT).to(tokens)

    def beyond(self, n: int) -> TokenEdit:
        """The plain projector onto all others."""
        return onto(self.basis[:, n:])

    def ladder(self) -> list[int]:
        """Ranks to try, rising: every one up to `DENSE`, then 12, 16, 24, 32, ..; `rank` itself; not all d directions."""
        steps = [half * 2**k for k in range(2, 20) for half in (2, 3)]
        return sorted({n for n in (*range(1, DENSE + 1), *steps, self.rank) if 0 < n < len(self.basis)})


def _completed(given: Float[Tensor, "d n"], covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """An orthonormal basis: the columns of `given`, one after the other, then the principal axes of what is left."""
    n = given.shape[1]
    basis = torch.linalg.qr(given, mode="complete").Q
    rest = basis[:, n:]
    _, axes = torch.linalg.eigh(rest.mT @ covariance @ rest)
    return torch.cat([basis[:, :n], rest @ axes.flip(-1)], dim=1)


def onto(basis: Float[Tensor, "d n"]) -> TokenEdit:
    """The orthogonal projector onto the span of orthonormal columns; computed in their type, given back in the tokens'."""
    return lambda tokens: (tokens.to(basis) @ basis @ basis.mT).to(tokens)


def random_basis(d: int, n: int, seed: Seed) -> Float[Tensor, "d n"]:
    """`n` orthonormal columns whose span is uniform among all of that rank."""
    return torch.linalg.qr(torch.randn(d, n, generator=generator(seed), dtype=torch.float64))[0]
