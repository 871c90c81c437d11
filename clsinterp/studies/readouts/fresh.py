"""Fresh CLS tokens: what can stand in for the CLS token that enters a block, so that the block reads the patches anew."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.interventions import Seed, generator

Fresh = Callable[[int, int, Seed], Float[Tensor, "n d_model"]]  # layer, images, seed -> tokens leaving that layer


class Moments:
    """Mean and covariance of the CLS tokens of each layer, from sums that stream (float64)."""

    def __init__(self) -> None:
        self.n = 0
        self.total: Tensor | None = None
        self.square: Tensor | None = None

    def update(self, tokens: Float[Tensor, "layer batch d_model"]) -> None:
        """Add a batch."""
        x = tokens.double().cpu()
        total, square = x.sum(1), x.mT @ x
        self.total = total if self.total is None else self.total + total
        self.square = square if self.square is None else self.square + square
        self.n += x.shape[1]

    @property
    def mean(self) -> Float[Tensor, "layer d_model"]:
        """The mean token."""
        assert self.total is not None, "no tokens were added"
        return self.total / self.n

    @property
    def covariance(self) -> Float[Tensor, "layer d_model d_model"]:
        """The covariance, divided by n."""
        assert self.square is not None, "no tokens were added"
        return self.square / self.n - self.mean.unsqueeze(2) * self.mean.unsqueeze(1)


def constant(moments: Moments, layers: Sequence[int]) -> Fresh:
    """The mean CLS token of that layer, for every image."""
    return lambda layer, n, seed: moments.mean[layers.index(layer)].expand(n, -1)


def gaussian(moments: Moments, layers: Sequence[int]) -> Fresh:
    """Samples from the Gaussian fitted to the CLS tokens of that layer."""
    roots = {}
    for i, layer in enumerate(layers):
        values, vectors = torch.linalg.eigh(moments.covariance[i])  # may be singular: fewer images than dimensions
        roots[layer] = vectors * values.clamp(min=0).sqrt()

    def draw(layer: int, n: int, seed: Seed) -> Tensor:
        root = roots[layer]
        noise = torch.randn(n, len(root), generator=generator(seed), dtype=root.dtype)
        return moments.mean[layers.index(layer)] + noise @ root.mT

    return draw
