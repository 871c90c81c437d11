"""The eraser against its definition, the authors' library, and the ridge probe."""

import concept_erasure
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clsinterp.errors import RequestError
from clsinterp.probing.leace import at_random, leace, moments
from clsinterp.probing.ridge import RidgeStats, solve


def sample(n=200, d=12, classes=4, seed=0, spread=1.0, missing=False):
    """Correlated features whose means differ by class, and labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes - missing, (n,), generator=draw)
    mix = torch.randn(d, d, generator=draw, dtype=torch.float64)
    means = spread * torch.randn(classes, d, generator=draw, dtype=torch.float64)
    x = torch.randn(n, d, generator=draw, dtype=torch.float64) @ mix + means[labels] + 5
    return x, labels


def sums(x, labels, classes=4, n_folds=5):
    stats = RidgeStats.zeros(1, x.shape[1], classes, n_folds)
    stats.update(x.unsqueeze(0), labels, torch.arange(len(x)))
    return stats


def cross_covariance(x, labels, classes=4):
    z = torch.nn.functional.one_hot(labels, classes).double()
    return (x - x.mean(0)).mT @ (z - z.mean(0)) / len(x)


def test_moments_are_those_of_the_images():
    x, labels = sample()
    mean, covariance, cross = moments(sums(x, labels), 0)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(covariance, torch.cov(x.mT, correction=0))
    torch.testing.assert_close(cross, cross_covariance(x, labels))


@given(
    n=st.integers(2, 60), d=st.integers(1, 20), classes=st.integers(2, 6), seed=st.integers(0, 99),
    penalty=st.sampled_from([0.0, 0.1, 1e3]), missing=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_erased_tokens_have_no_covariance_with_the_label(n, d, classes, seed, penalty, missing):
    x, labels = sample(n, d, classes, seed, missing=missing)
    eraser = leace(sums(x, labels, classes), 0, penalty)
    erased = eraser(x)
    assert cross_covariance(erased, labels, classes).abs().max() < 1e-7
    torch.testing.assert_close(erased.mean(0), x.mean(0))
    torch.testing.assert_close(eraser(erased), erased, rtol=1e-6, atol=1e-6)  # a projection
    assert eraser.left.shape[1] <= min(classes - 1, d, n - 1)
    assert ((eraser.correlation > 0) & (eraser.correlation <= 1 + 1e-6)).all()
    assert (eraser.correlation.diff() <= 1e-12).all()


@pytest.mark.parametrize(("n", "d"), [(200, 12), (30, 40)], ids=["full rank", "fewer tokens than dimensions"])
def test_it_is_the_librarys(n, d):
    x, labels = sample(n, d)
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    plain = {"shrinkage": False, "constrain_cov_trace": False, "svd_tol": 1e-8}
    theirs = concept_erasure.LeaceEraser.fit(x, one_hot, **plain)
    ours = leace(sums(x, labels), 0)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.eye(d, dtype=x.dtype) - ours.left @ ours.right, theirs.P, rtol=1e-6, atol=1e-6)


def test_of_all_erasers_it_moves_the_tokens_least():
    x, labels = sample()
    stats = sums(x, labels)
    moved = [(leace(stats, 0, penalty)(x) - x).square().mean() for penalty in (0.0, 1.0, 100.0, 1e9)]
    # Orthogonal projection onto the complement of the mean differences erases as well, and is the limit of a large penalty.
    basis = torch.linalg.svd(cross_covariance(x, labels))[0][:, :3]
    plain = ((x - x.mean(0)) @ basis @ basis.mT).square().mean()
    assert moved[0] < moved[1] < moved[2] < moved[3]
    torch.testing.assert_close(moved[3], plain, rtol=1e-3, atol=0)


def test_no_affine_reader_beats_the_best_constant_on_the_training_images():
    x, labels = sample(spread=4.0)
    erased = leace(sums(x, labels), 0)(x)
    target = 2 * torch.nn.functional.one_hot(labels, 4).double() - 1
    constant = (target - target.mean(0)).square().sum()
    design = torch.cat([erased, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    best = torch.linalg.lstsq(design, target, driver="gelsd").solution
    torch.testing.assert_close((design @ best - target).square().sum(), constant)
    assert (design @ best - target.mean(0)).abs().max() < 1e-7  # the best reader is that constant
    intact = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    read = (intact @ torch.linalg.lstsq(intact, target).solution - target).square().sum()
    assert read < 0.7 * constant  # before, there was something to read
    logistic = torch.zeros(13, 4, dtype=x.dtype, requires_grad=True)  # another loss: the proof is for every convex one
    scaled = torch.cat([(erased - erased.mean(0)) / erased.std(0), design[:, -1:]], dim=1)
    optimizer = torch.optim.LBFGS([logistic], max_iter=200)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(scaled @ logistic, labels)
        value.backward()
        return value

    optimizer.step(loss)
    share = labels.bincount(minlength=4).double() / len(labels)
    torch.testing.assert_close(float(loss().detach()), float(-(share * share.log()).sum()), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (30, 40)])
def test_with_the_probes_penalty_the_probe_reads_nothing_from_new_tokens(n, d):
    x, labels = sample(n, d, spread=3.0)
    stats = sums(x, labels)
    probe = solve(stats)
    eraser = leace(stats, 0, float(probe.alpha[0]))
    new, _ = sample(50, d, seed=1)
    constant = probe.scores(x.mean(0), 0)
    torch.testing.assert_close(probe.scores(eraser(new), 0), constant.expand(50, 4), rtol=1e-6, atol=1e-6)
    assert probe.scores(new, 0).std(0).min() > 1e-3
    rows, ours = torch.linalg.svd(probe.weight[0])[2][:3], torch.linalg.qr(eraser.right.mT)[0]
    torch.testing.assert_close(ours @ ours.mT, rows.mT @ rows, rtol=1e-6, atol=1e-6)  # one row space


def test_directions_solve_the_generalised_eigenproblem_in_order():
    x, labels = sample(spread=2.0)
    stats = sums(x, labels)
    eraser, (_, covariance, cross) = leace(stats, 0, 7.0), moments(stats, 0)
    between = cross @ torch.diag(1 / (stats.counts.sum(0) / stats.n)) @ cross.mT
    total = covariance + 7.0 / stats.n * torch.eye(12, dtype=x.dtype)
    for v, c in zip(eraser.right, eraser.correlation, strict=True):
        torch.testing.assert_close(between @ v, c**2 * total @ v)
    torch.testing.assert_close(eraser.right @ eraser.left, torch.eye(3, dtype=x.dtype), atol=1e-9, rtol=0)


def test_tokens_that_do_not_vary_are_left_alone():
    x = (torch.ones(50, 6) * 1e4 + 1e-4 * torch.randn(50, 6)).float()  # but for the rounding of float32
    labels = torch.arange(50) % 3
    eraser = leace(sums(x, labels, 3), 0)
    assert eraser.left.shape == (6, 0)
    assert torch.equal(eraser(x), x)


def test_tokens_keep_their_type_and_shape():
    x, labels = sample()
    eraser = leace(sums(x, labels), 0)
    half = x.half().reshape(10, 20, 12)
    assert eraser(half).dtype == torch.float16
    torch.testing.assert_close(eraser(half).double(), eraser(x).reshape(10, 20, 12), rtol=0.01, atol=0.05)
    torch.testing.assert_close(x - eraser.component(x - x.mean(0)), eraser(x))


def test_one_image_is_too_few():
    with pytest.raises(RequestError, match="1 training images were given; erasing a label needs at least 2"):
        leace(sums(*sample(1)), 0)


def test_an_eraser_at_random_is_as_large_and_leaves_the_label():
    x, labels = sample(spread=3.0)
    stats = sums(x, labels)
    random, eraser = at_random(stats, 0, 3, seed=1), leace(stats, 0)
    assert random.left.shape == eraser.left.shape
    torch.testing.assert_close(random(random(x)), random(x))
    assert cross_covariance(random(x), labels).norm() > 0.3 * cross_covariance(x, labels).norm()
    # Both take three units of whitened variance away.
    for one in (random, eraser):
        torch.testing.assert_close(torch.cov((x @ one.right.mT).mT, correction=0), torch.eye(3, dtype=x.dtype))
