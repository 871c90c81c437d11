"""The passes of the subspace study: every partial swap of a batch in one forward, answers for each image."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from clsinterp.interventions import TokenEdit, donors, exchange, partly, swap
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.subspace.bases import Directions, onto, random_basis
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.variants import Edit, on

Answers = dict[tuple, Int[Tensor, " n"]]


def of_all(setup: Setup, directions: Sequence[Directions], mode: str, draws: int) -> Answers:
    """Answers intact and under the whole swap and its parts: (curve, layer, draw) -> (n,).

    Args:
        setup: model and images.
        directions: of every layer.
        mode: how donors are drawn, as in `clsinterp.interventions.donors`.
        draws: random subspaces per layer.
    """
    where, d = setup.model.layout.index("cls"), setup.model.d_model
    parts: dict[tuple, list[Tensor]] = {}
    for batch in setup.batches(setup.test, "parts of the token"):
        whole = swap(donor(setup, batch, mode))
        edits: dict[tuple, Edit] = {}
        for layer, at in enumerate(directions):
            changes: dict[tuple, TokenEdit] = {
                ("shuffle", layer, None): whole,
                ("swap_probe_subspace", layer, None): partly(whole, at.first(at.rank)),
                ("swap_complement", layer, None): partly(whole, at.beyond(at.rank)),
                ("swap_leace", layer, None): partly(whole, at.eraser.component),
            }
            for k in range(draws):
                basis = random_basis(d, at.rank, (setup.seed, layer, k))
                changes["swap_random_subspace", layer, k] = partly(whole, onto(basis))
            edits |= {key: Edit({layer: on(where, change)}) for key, change in changes.items()}
        said = setup.outputs(batch, list(edits.values())).argmax(-1)
        for key, answer in zip([("intact", None, None), *edits], said, strict=True):
            parts.setdefault(key, []).append(answer)
    return {key: torch.cat(found) for key, found in parts.items()}


def of_ranks(
    setup: Setup, directions: Sequence[Directions], mode: str, half: int, ranks: Mapping[int, Sequence[tuple[int, str]]]
) -> Answers:
    """Answers of every other image when its first directions are swapped: (layer, rank, inner product) -> (n / 2,).

    Args:
        setup, directions, mode: as for `of_all`; donors are the same.
        half: 0 for images 0, 2, .. of every batch, 1 for the others.
        ranks: layer -> how many directions, and under which inner product; one copy for each.
    """
    where = setup.model.layout.index("cls")
    parts: dict[tuple, list[Tensor]] = {}
    for batch in setup.batches(setup.test, "ranks") if ranks else ():
        own = slice(half, None, 2)
        index = donor(setup, batch, mode)[own]
        tokens, _ = capture(setup.model, batch.pixels, list(ranks))
        edits = {
            (layer, n, inner): Edit(
                {layer: on(where, partly(exchange(donated[index]), directions[layer].first(n, inner)))}
            )
            for layer, donated in zip(sorted(ranks), tokens, strict=True)
            for n, inner in ranks[layer]
        }
        hosts = Batch(batch.number, batch.pixels[own], batch.labels[own], batch.targets[own])
        if not len(hosts):
            continue
        for key, answer in zip(edits, setup.outputs(hosts, list(edits.values()))[1:].argmax(-1), strict=True):
            parts.setdefault(key, []).append(answer)
    return {key: torch.cat(found) for key, found in parts.items()}


def donor(setup: Setup, batch: Batch, mode: str) -> Int[Tensor, " batch"]:
    """Whose token each image of a batch gets: as in a run with the same seed and batch size."""
    return donors(mode, batch.labels, (setup.seed, batch.number))


def of_half(setup: Setup, half: int) -> Int[Tensor, " n"]:
    """Places of the test images that `of_ranks` takes."""
    place = torch.arange(len(setup.test))
    return place[place % setup.batch_size % 2 == half]
