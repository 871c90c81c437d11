"""Fresh CLS tokens that are trained through the frozen block they are put before, each with a linear probe behind it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clsinterp.interventions import Seed, generator
from clsinterp.studies.readouts.fresh import Moments
from clsinterp.studies.readouts.row import show, through
from clsinterp.studies.setup import Batch, Setup

FIRST, LAST = 1.0, 0.1  # temperature of the calibrated samples, when training starts and when it ends


class Learned(nn.Module):
    """For each layer a token, or a small MLP from noise to tokens, and the linear probe it is trained with.

    Training starts from the mean token: it is the constant, or the bias of an MLP whose last map starts at zero.

    Args:
        moments: of the CLS tokens of `layers`.
        layers: which the tokens leave, to enter the block after.
        n_classes: of the probes.
        noise: dimensions of the noise; 0: a constant.
        hidden: of the MLP.
        augment: the token is put in front, and the CLS token stays.
        samples: tokens drawn for an image in training.
    """

    def __init__(
        self, moments: Moments, layers: Sequence[int], n_classes: int, *, noise: int = 16, hidden: int = 64,
        augment: bool = False, samples: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers, self.noise, self.augment, self.samples = list(layers), noise, augment, samples
        d = moments.mean.shape[1]
        self.start = nn.ParameterList(nn.Parameter(mean.float()) for mean in moments.mean)
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Linear(noise, hidden), nn.GELU(), nn.Linear(hidden, d, bias=False))
            for _ in (layers if noise else ())
        )
        self.probes = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, n_classes)) for _ in layers)
        for one in self.maps:
            last: Any = list(one.children())[-1]
            nn.init.zeros_(last.weight)

    def forward(self, layer: int, noise: Float[Tensor, "*rows noise"]) -> Float[Tensor, "*rows d_model"]:
        """Tokens for `layer`."""
        k = self.layers.index(layer)
        start = self.start[k].expand(*noise.shape[:-1], -1)
        return start + self.maps[k](noise) if self.noise else start

    @torch.no_grad()
    def sample(self, layer: int, n: int, seed: Seed) -> Float[Tensor, "n d_model"]:
        """Tokens for `layer` from seeded noise."""
        return self(layer, torch.randn(n, self.noise, generator=generator(seed)).to(self.start[0]))

    def loss(self, logits: Tensor, batch: Batch, parent: Tensor, done: float) -> Tensor:
        """Of the probe's logits (sample, image, class): here the cross-entropy with the labels.

        Args:
            logits: of the probe.
            batch: the images.
            parent: the model's own logits, (image, class).
            done: share of the training that is over.
        """
        targets = batch.targets.to(logits.device).expand(logits.shape[:-1])
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


class Calibrated(Learned):
    """Tokens of which many are drawn for an image, so that their answers together are the model's own distribution."""

    def loss(self, logits: Tensor, batch: Batch, parent: Tensor, done: float) -> Tensor:
        """KL divergence of the samples' mean answer from the model's; the answers sharpen while training goes on."""
        return divergence(mean_answer(logits, temperature(done)), parent.softmax(-1)).mean()


def temperature(done: float) -> float:
    """From `FIRST` to `LAST`, by the same factor in every step."""
    return FIRST * (LAST / FIRST) ** done


def mean_answer(logits: Float[Tensor, "samples n classes"], temperature: float) -> Float[Tensor, "n classes"]:
    """The mean over samples of their softmax at a temperature."""
    return (logits / temperature).softmax(-1).mean(0)


def divergence(p: Float[Tensor, "n classes"], q: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """KL(p | q) in nats, row by row; 0 log 0 is 0."""
    return (torch.xlogy(p, p) - p * q.clamp(min=1e-30).log()).sum(-1)


def train(
    learned: Mapping[str, Learned], setup: Setup, epochs: Iterable[Iterable[Batch]], steps: int, lr: float = 3e-3
) -> dict[str, list[float]]:
    """Train all of `learned`, for every layer, with one forward of the model for a batch; mean loss per epoch.

    As in the note's code (``src/model/CLS_token_probing.py``), the tokens that enter the block are detached and its
    parameters frozen, and gradients pass through the block into the generator; an early version of that file (09b6234) ran
    the block under ``no_grad``, so that there only the probe learned.

    Args:
        learned: name -> what is trained.
        setup: the model and its classifier.
        epochs: batches of train images, as often as they are gone through.
        steps: batches in all, over which temperatures fall.
        lr: Adam's learning rate.
    """
    model = setup.model
    parameters = list(model._module.parameters())
    wanted = [p.requires_grad for p in parameters]
    model._module.requires_grad_(False)
    together = nn.ModuleDict({name.replace(".", " "): one for name, one in learned.items()}).to(parameters[0].device)
    optimizer = torch.optim.Adam(together.parameters(), lr=lr)
    together.train()
    losses: dict[str, list[float]] = {name: [] for name in learned}
    done = 0
    try:
        for e, epoch in enumerate(epochs):
            seen: dict[str, list[float]] = {name: [] for name in learned}
            for batch in epoch:
                entering = next(iter(learned.values())).layers
                shown, readout = show(model, batch.pixels, [layer + 1 for layer in entering])
                parent = setup.head(readout).detach()
                optimizer.zero_grad()
                for number, (name, one) in enumerate(learned.items()):
                    seed = generator((setup.seed, number, e, batch.number))
                    noise = torch.randn(one.samples, len(batch), one.noise, generator=seed).to(batch.pixels)
                    total = 0.0
                    for k, layer in enumerate(
                        entering
                    ):  # a layer at a time: its graph is freed before the next is made
                        after = through(model, layer + 1, shown[layer + 1], one(layer, noise), one.augment)
                        loss = one.loss(one.probes[k](after), batch, parent, done / steps)
                        loss.backward()
                        total += float(loss.detach()) / len(entering)
                    seen[name].append(total)
                optimizer.step()
                done += 1
            for name, found in seen.items():
                losses[name].append(sum(found) / len(found))
    finally:
        for p, w in zip(parameters, wanted, strict=True):
            p.requires_grad_(w)
    together.eval()
    return losses


def learn(
    setup: Setup, moments: Moments, layers: Sequence[int], n_epochs: int, samples: int = 64
) -> tuple[dict[str, Learned], dict[str, list[float]]]:
    """The learned kinds of token, trained, and their losses by epoch.

    Args:
        setup: model, classifier and images.
        moments: of the CLS tokens of `layers`.
        layers: which the tokens leave.
        n_epochs: passes over the train images.
        samples: drawn for an image by the calibrated kind.

    Returns:
        ``learned constant``, ``generator``, ``augment`` and ``calibrated``; the last is left out where the classifier is a
        ridge fit, whose scores are no probabilities.
    """
    own = (moments, layers, setup.head.n_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        kinds = {
            "learned constant": Learned(*own, noise=0),
            "generator": Learned(*own),
            "augment": Learned(*own, augment=True),
        }
        if not setup.reads_by_ridge:
            kinds["calibrated"] = Calibrated(*own, samples=samples)
    epochs = (setup.batches(setup.train, f"training, epoch {e + 1}") for e in range(n_epochs))
    return kinds, train(kinds, setup, epochs, n_epochs * -(-len(setup.train) // setup.batch_size))


@torch.no_grad()
def answers(
    one: Learned, setup: Setup, batch: Batch, n: int
) -> tuple[Float[Tensor, "layer samples batch classes"], Float[Tensor, "batch classes"]]:
    """The probes' logits for `n` tokens drawn for every image, and the model's own logits."""
    shown, readout = show(setup.model, batch.pixels, [layer + 1 for layer in one.layers])
    found = []
    for k, layer in enumerate(one.layers):
        seed = (setup.seed, 2, batch.number, k)
        tokens = one.sample(layer, n * len(batch), seed).unflatten(0, (n, len(batch)))
        found.append(one.probes[k](through(setup.model, layer + 1, shown[layer + 1], tokens, one.augment)).cpu())
    return torch.stack(found), setup.head(readout).cpu()


@torch.no_grad()
def through_next_block(
    setup: Setup, batch: Batch, tokens: Mapping[int, Float[Tensor, "batch d_model"]], augment: bool = False
) -> dict[int, Float[Tensor, "batch d_model"]]:
    """The token after block ``layer + 1``, when `tokens` of each `layer` enter it, in place of the CLS token or beside it."""
    shown, _ = show(setup.model, batch.pixels, [layer + 1 for layer in tokens])
    return {layer: through(setup.model, layer + 1, shown[layer + 1], token, augment) for layer, token in tokens.items()}
