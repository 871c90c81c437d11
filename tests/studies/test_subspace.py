"""The study of used subspaces against plain torch, and where the answer is known."""

import pyarrow.parquet as pq
import pytest
import torch
from study_scripts import run

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.interventions import partly, permute, swap
from clsinterp.models.planted import planted
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.studies.setup import Setup
from clsinterp.studies.subspace.bases import PLAIN, WHITENED, Directions, onto, random_basis
from clsinterp.studies.subspace.used import refusal, share, smallest


def rows(out, **where):
    table = pq.read_table(out / "subspace.parquet").to_pylist()
    return [r for r in table if all(r[k] == v for k, v in where.items())]


def value(out, **where):
    (row,) = rows(out, **where)
    return row["value"]


def tokens(n, means, seed, noise=1.0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(means), (n,), generator=draw)
    return means[labels] + noise * torch.randn(n, means.shape[1], generator=draw, dtype=torch.float64), labels


def directions(x, labels, n_classes):
    stats = RidgeStats.zeros(1, x.shape[1], n_classes)
    stats.update(x.unsqueeze(0), labels, torch.arange(len(x)))
    probe = solve(stats)
    return Directions.of(stats, 0, float(probe.alpha[0])), probe


MEANS = torch.randn(6, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * torch.arange(10, 0, -1)


def test_directions_are_bases_that_begin_with_the_row_space():
    x, labels = tokens(400, MEANS, 0)
    at, probe = directions(x, labels, 6)
    eye = torch.eye(10, dtype=x.dtype)
    torch.testing.assert_close(at.basis.mT @ at.basis, eye)
    assert at.rank == 5
    read = torch.linalg.svd(probe.weight[0])[2][:5]
    torch.testing.assert_close(at.first(5)(eye), read.mT @ read, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(at.first(5)(x) + at.beyond(5)(x), x)
    torch.testing.assert_close(at.first(5, WHITENED)(x), at.eraser.component(x))
    torch.testing.assert_close(at.first(10, WHITENED)(x), x)
    for inner in (PLAIN, WHITENED):
        for n in range(11):
            p = at.first(n, inner)(eye).mT
            torch.testing.assert_close(p @ p, p)
            assert torch.linalg.matrix_rank(p) == n
    assert at.ladder() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_swap_in_the_whitened_directions_leaves_means_and_covariance_as_they_are():
    x, labels = tokens(20_000, MEANS, 0)
    at, _ = directions(x, labels, 6)
    moved = partly(swap(torch.randperm(len(x), generator=torch.Generator().manual_seed(1))), at.first(3, WHITENED))(x)
    torch.testing.assert_close(moved.mean(0), x.mean(0))
    change = torch.cov(moved.mT) - torch.cov(x.mT)
    assert change.abs().max() < 0.03 * torch.cov(x.mT).diagonal().max()


@pytest.mark.parametrize("inner", [PLAIN, WHITENED])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_reader_of_k_known_directions_has_rank_k(k, inner):
    """A model that is the nearest class mean as seen in exactly k directions: r = k, and nothing else of a token matters."""
    x, labels = tokens(1200, MEANS, 0, noise=0.1)
    at, _ = directions(x, labels, 6)
    seen = at.basis[:, :k].mT if inner == PLAIN else at.right[:k]
    centres = torch.stack([x[labels == c].mean(0) for c in range(6)]) @ seen.mT

    def answer(t):
        return torch.cdist(t @ seen.mT, centres).argmin(-1)

    index = permute(len(x), 5)
    own, other = answer(x), labels[index]
    whole = swap(index)

    def gain(said):
        return (said == other).double() - (own == other).double()

    full = gain(answer(whole(x)))
    partial = {n: gain(answer(partly(whole, at.first(n, inner))(x))) for n in at.ladder()}
    assert torch.equal(partial[k], full)
    found = smallest({n: g[0::2] for n, g in partial.items()}, full[0::2], 10)
    assert (found.rank, found.dips, found.reason) == (k, (), None)
    assert share(partial[k][1::2], full[1::2]).value == 1
    rest = at.beyond(k) if inner == PLAIN else lambda t: t - at.first(k, WHITENED)(t)
    assert torch.equal(answer(partly(whole, rest)(x)), own)


def test_no_rank_without_an_effect_or_enough_images():
    full = torch.zeros(200)
    full[:30] = 1.0
    assert refusal(full) is None
    assert "99 images to choose on are too few; at least 100" in refusal(full[:99])
    assert "turns 0 of 200" in refusal(torch.zeros(200))
    assert "has no effect" in refusal(torch.cat([full[:40], -full[:40], torch.zeros(120)]))
    assert "turns 19 of 189 images to the donor's label; at least 20" in refusal(full[11:])
    half = full.clone()
    half[15:30] = 0
    found = smallest({1: half, 2: full, 3: half, 4: full}, full, 8)
    assert (found.rank, found.dips) == (2, (3,))
    assert smallest({1: half}, full, 8).rank == 8
    assert smallest({1: full}, torch.zeros(200), 8).rank is None
    held = share(half, full)
    assert held.value == pytest.approx(0.5)
    assert held.low < 0.4 < 0.6 < held.high


def test_random_bases_are_seeded_and_orthonormal():
    basis = random_basis(7, 3, (0, 1))
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3, dtype=basis.dtype))
    assert torch.equal(basis, random_basis(7, 3, (0, 1)))
    assert not torch.equal(basis, random_basis(7, 3, (0, 2)))
    assert onto(random_basis(7, 0, 0))(torch.ones(2, 7)).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["beit", "dinov2-registers"])
def test_partial_swaps_equal_one_hooked_forward_each(family, checkpoint, folder, tmp_path):
    out = run("subspace", tmp_path / "out", checkpoint(family), "--data", folder, "--draws", "2")
    s = Setup.open(str(checkpoint(family)), str(folder), batch_size=16, workers=0)
    probes, layer = s.read_train()[0], 2
    read = torch.linalg.svd(probes.weight[layer])[2][: s.n_classes - 1]
    basis = random_basis(s.model.d_model, s.n_classes - 1, (0, layer, 1))
    parts = {
        ("shuffle", None): lambda x: x,
        ("swap_probe_subspace", None): lambda x: x @ read.mT @ read,
        ("swap_complement", None): lambda x: x - x @ read.mT @ read,
        ("swap_random_subspace", 1): lambda x: x @ basis @ basis.mT,
    }
    for (curve, draw), part in parts.items():
        hits: dict[str, list] = {"accuracy": [], "donor": [], "agreement": []}
        for b in s.batches(s.test):
            index = permute(len(b), (0, b.number))
            moved = lambda t, i=index, f=part: (t.double() + f(t.double()[i] - t.double())).float()  # noqa: E731
            said = plain_forward(s.model, b.pixels, layer, 0, moved)[2].argmax(-1)
            hits["accuracy"].append(said == b.targets)
            hits["donor"].append(said == b.targets[index])
            hits["agreement"].append(said == plain_forward(s.model, b.pixels)[2].argmax(-1))
        for measure, found in hits.items():
            expected = float(torch.cat(found).double().mean())
            assert value(out, curve=curve, measure=measure, layer=layer, draw=draw) == pytest.approx(expected), curve
    both = [value(out, curve="swap_random_subspace", measure="donor", layer=layer, draw=k) for k in (0, 1)]
    assert value(out, curve="swap_random_subspace", measure="donor", layer=layer, draw=None) == pytest.approx(
        sum(both) / 2
    )
    for inner in (PLAIN, WHITENED):
        (row,) = rows(out, curve="used_rank", layer=0, inner=inner)
        assert row["value"] is None
        assert row["reason"] == "21 images to choose on are too few; at least 100 are needed"


def test_a_planted_model_uses_what_was_built(tmp_path):
    model = planted(1, 2, n_layers=4, n_classes=3)
    model.save(tmp_path / "model")
    model.write_images(tmp_path / "data", (9, 12, 15), 68)
    out = run("subspace", tmp_path / "out", tmp_path / "model", "--data", tmp_path / "data", "--draws", "1")
    for layer in range(4):
        used = layer >= 2
        donor = {name: value(out, curve=name, measure="donor", layer=layer, draw=None)
                 for name in ("shuffle", "swap_probe_subspace", "swap_leace", "swap_complement")}  # fmt: skip
        nothing = value(out, curve="intact", measure="donor")
        if used:  # the code of three labels, two directions, is all that the token says and all that is read of it
            assert donor == pytest.approx(
                donor | {"shuffle": 1, "swap_probe_subspace": 1, "swap_leace": 1, "swap_complement": nothing}
            )
        else:
            assert set(donor.values()) == {nothing}
        for name in ("swap_complement", *(() if used else donor)):
            assert value(out, curve=name, measure="agreement", layer=layer, draw=None) == 1
        assert value(out, curve="row_space_rank", layer=layer) == (0 if layer == 0 else 2)
        for inner in (PLAIN, WHITENED):
            assert value(out, curve="used_rank", layer=layer, inner=inner) == (2 if used else None)
            if used:
                assert value(out, curve="used_share", layer=layer, inner=inner, rank=2) == 1
                assert value(out, curve="effect_share", layer=layer, inner=inner, rank=1) < 0.95
