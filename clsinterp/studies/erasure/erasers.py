"""Erasers of every layer from one pass over the train images, and what is left of the label on images they have not seen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clsinterp.probing.leace import Eraser, at_random, leace
from clsinterp.probing.ridge import FOLDS, Ridge, RidgeStats, solve
from clsinterp.probing.streams import fit_ridge
from clsinterp.studies.setup import Setup
from clsinterp.sweeps.variants import Edit, on, variants


@dataclass(frozen=True)
class Fitted:
    """What the train images give.

    Attributes:
        stats: the sums of the intact CLS tokens, a regression per layer.
        probes: fitted on them.
        erasers: of the label, one per layer.
        controls: as many random directions, one per layer.
        readout: the mean read-out (d_readout,).
    """

    stats: RidgeStats
    probes: Ridge
    erasers: tuple[Eraser, ...]
    controls: tuple[Eraser, ...]
    readout: Float[Tensor, " d_readout"]

    @classmethod
    def on_train(cls, setup: Setup, penalised: bool = True) -> "Fitted":
        """From one pass over the train images.

        Args:
            setup: model and images.
            penalised: whether the erasers' covariance has the penalty of the layer's probe; else LEACE as published.
        """
        stats, readout = setup.train_statistics("probes and erasers")
        probes = solve(stats)
        penalties = (probes.alpha * penalised).tolist()
        erasers = tuple(leace(stats, layer, p) for layer, p in enumerate(penalties))
        controls = tuple(
            at_random(stats, layer, len(erasers[layer].right), p, (setup.seed, layer))
            for layer, p in enumerate(penalties)
        )
        return cls(stats, probes, erasers, controls, readout)

    def fresh_probes(self, setup: Setup) -> tuple[list[tuple[int, int]], Ridge]:
        """Probes fitted on train tokens under erasure: places (erased layer, probed layer), and a probe for each.

        One more pass over the train images, in which an erased copy for every layer rides from there on.
        """
        places = [(i, j) for i in setup.layers for j in setup.layers if i <= j]
        where = setup.model.layout.index("cls")
        edits = [Edit({layer: on(where, eraser)}) for layer, eraser in enumerate(self.erasers)]

        def tokens() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in setup.batches(setup.train, "probes after erasure"):
                seen = variants(setup.model, batch.pixels, edits, watched=setup.layers).tokens
                yield torch.stack([seen[j][i + 1].cpu() for i, j in places]), batch.labels

        return places, fit_ridge(tokens(), setup.n_classes, n_folds=min(FOLDS, len(setup.train)))


def leftover(
    tokens: Float[Tensor, "n_layers n d"], labels: Int[Tensor, " n"], n_classes: int
) -> Bool[Tensor, "n n_layers"]:
    """Which erased tokens a probe reads that was fitted on the other half of them: what the eraser left on new images.

    Args:
        tokens: erased, of images that the erasers were not fitted on.
        labels: theirs.
        n_classes: number of classes.
    """
    right = torch.zeros(tokens.shape[1], len(tokens), dtype=torch.bool)
    places = torch.arange(len(labels))
    for half in (0, 1):
        fit, read = places[places % 2 == half], places[places % 2 != half]
        if len(fit) < FOLDS:
            continue  # too few to fit anything: nothing is read
        probes = fit_ridge([(tokens[:, fit], labels[fit])], n_classes)
        for i, x in enumerate(tokens):
            right[read, i] = probes.scores(x[read], i).argmax(-1) == labels[read]
    return right
