"""Fresh CLS tokens: what can stand in for the CLS token that enters a block, so that the block reads the patches anew."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clsinterp.interventions import Seed, exchange, generator
from clsinterp.studies.setup import Batch
from clsinterp.sweeps.variants import Edit, on, variants
from clsinterp.vision_model import VisionModel

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


class Generators(nn.Module):
    """For each layer a small MLP from noise to CLS tokens, with the linear probe it is trained with.

    The last map starts at zero and the mean token is its bias, so training starts from the constant.
    """

    def __init__(
        self, moments: Moments, layers: Sequence[int], n_classes: int, noise: int = 16, hidden: int = 64
    ) -> None:
        super().__init__()
        self.layers, self.noise = list(layers), noise
        d = moments.mean.shape[1]
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Linear(noise, hidden), nn.GELU(), nn.Linear(hidden, d)) for _ in layers
        )
        self.probes = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, n_classes)) for _ in layers)
        for mean, one in zip(moments.mean, self.maps, strict=True):
            last: Any = list(one.children())[-1]
            nn.init.zeros_(last.weight)
            last.bias.data = mean.float()

    def forward(self, layer: int, noise: Float[Tensor, "n noise"]) -> Float[Tensor, "n d_model"]:
        """Tokens for `layer`."""
        return self.maps[self.layers.index(layer)](noise)

    @torch.no_grad()
    def sample(self, layer: int, n: int, seed: Seed) -> Float[Tensor, "n d_model"]:
        """Tokens for `layer` from seeded noise."""
        noise = torch.randn(n, self.noise, generator=generator(seed))
        return self(layer, noise.to(next(self.parameters())))


def train(
    generators: Generators, model: VisionModel, epochs: Iterable[Iterable[Batch]], seed: int, lr: float = 3e-3
) -> list[float]:
    """Train every layer's generator and probe through its frozen block, all layers in one forward; mean loss per epoch.

    The loss of a layer is the cross-entropy of its probe on the CLS token after the next block. As in the note's code
    (``src/model/CLS_token_probing.py``), the tokens that enter the block are detached and its parameters frozen, and
    gradients pass through the block into the generator; an early version of that file (09b6234) ran the block under
    ``no_grad``, so that there only the probe learned.
    """
    parameters = list(model._module.parameters())
    wanted = [p.requires_grad for p in parameters]
    model._module.requires_grad_(False)
    optimizer = torch.optim.Adam(generators.parameters(), lr=lr)
    generators.to(parameters[0].device).train()
    losses = []
    try:
        for e, epoch in enumerate(epochs):
            seen = []
            for batch in epoch:
                noise = torch.randn(len(batch), generators.noise, generator=generator((seed, e, batch.number)))
                made = {layer: generators(layer, noise.to(batch.pixels)) for layer in generators.layers}
                after = through_next_block(model, batch, made, grad=True)
                loss = torch.stack(
                    [
                        F.cross_entropy(probe(after[layer]), batch.labels.to(batch.pixels.device))
                        for layer, probe in zip(generators.layers, generators.probes, strict=True)
                    ]
                )
                optimizer.zero_grad()
                loss.sum().backward()
                optimizer.step()
                seen.append(float(loss.detach().mean()))
            losses.append(sum(seen) / len(seen))
    finally:
        for p, w in zip(parameters, wanted, strict=True):
            p.requires_grad_(w)
    generators.eval()
    return losses


def through_next_block(
    model: VisionModel, batch: Batch, tokens: dict[int, Float[Tensor, "batch d_model"]], grad: bool = False
) -> dict[int, Float[Tensor, "batch d_model"]]:
    """The CLS token after block ``layer + 1``, when `tokens` take the CLS tokens' place after each `layer`, one at a time.

    Every copy leaves after that block, so all layers together cost two forwards.
    """
    where = model.layout.index("cls")
    edits = [Edit({layer: on(where, exchange(t))}, until=layer + 1) for layer, t in tokens.items()]
    watched = [layer + 1 for layer in tokens]
    seen = variants(model, batch.pixels, edits, watched=watched, grad=grad).tokens
    return {layer: seen[layer + 1][k] for k, layer in enumerate(tokens, start=1)}
