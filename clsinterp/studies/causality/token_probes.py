"""Ridge probes of their own for single tokens, at every layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.probing.metrics import ranks
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import joined
from clsinterp.sweeps.variants import INTACT, variants


def spread(n_tokens: int, n: int) -> list[int]:
    """At most `n` token indices, evenly spaced from the first to the last."""
    return torch.linspace(0, n_tokens - 1, min(n, n_tokens)).round().long().tolist()


def probe_ranks(setup: Setup, tokens: Sequence[int]) -> Int[Tensor, "layer token n"]:
    """Rank of the true label for every test image, by a probe fitted on the train images for each layer and token.

    Args:
        setup: model and images.
        tokens: indices in the model's own sequence, prefix tokens first.
    """

    def features(batch: Batch) -> Float[Tensor, "probes batch d_model"]:
        seen = variants(setup.model, batch.pixels, [], watch=list(tokens), watched=setup.layers).tokens
        return torch.cat([seen[layer][INTACT].transpose(0, 1).cpu() for layer in setup.layers])

    probes = setup.fit_on_train(features, "probes, train")

    def scored(batch: Batch) -> Int[Tensor, "probes batch"]:
        x = features(batch)
        return torch.stack([ranks(probes.scores(x[i], i), batch.labels) for i in range(len(x))])

    found = joined((scored(batch) for batch in setup.batches(setup.test, "probes, test")), dim=1)
    return found.view(len(setup.layers), len(tokens), -1)
