import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SkRidge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from clsinterp.errors import RequestError
from clsinterp.probing.ridge import ALPHAS, RidgeStats, solve


def problem(n=400, d=24, n_classes=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    centres = rng.normal(size=(n_classes, d))
    x = centres[labels] + rng.normal(size=(n, d)) * 3 + 5.0  # far from the origin: the intercept matters
    return x * rng.uniform(0.1, 10, d), labels


def streamed(x, labels, n_classes=6, batch=37, n_folds=5):
    stats = RidgeStats.zeros(1, x.shape[1], n_classes, n_folds)
    x, labels = torch.tensor(x).unsqueeze(0), torch.tensor(labels)
    for start in range(0, x.shape[1], batch):
        part = slice(start, start + batch)
        stats.update(x[:, part], labels[part], torch.arange(x.shape[1])[part])
    return stats


def targets(labels, n_classes=6):
    return 2.0 * np.eye(n_classes)[labels] - 1


def mean_eigenvalue(x):
    centred = x - x.mean(0)
    return np.linalg.eigvalsh(centred.T @ centred).mean()


@pytest.mark.parametrize("scale", [1e-4, 0.02, 1e3])
def test_the_scale_of_the_features_does_not_matter(scale):
    x, labels = problem()
    plain, scaled = solve(streamed(x, labels)), solve(streamed(x * scale, labels))
    torch.testing.assert_close(scaled.cv_error, plain.cv_error, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(scaled.weight * scale, plain.weight, rtol=1e-6, atol=1e-9)


def test_a_penalty_on_the_edge_of_the_grid_is_said():
    x, labels = problem()
    best = solve(streamed(x, labels))
    assert best.at_edge == [False]
    chosen = best.cv_error[0].argmin()
    assert solve(streamed(x, labels), ALPHAS[: chosen + 1]).at_edge == [True]
    assert solve(streamed(x, labels), ALPHAS[chosen:]).at_edge == [True]
    assert solve(streamed(x, labels), (1.0,)).at_edge == [False]  # no choice, no edge


def test_cross_validated_ridge_equals_scikit_learn():
    x, labels = problem()
    search = GridSearchCV(
        SkRidge(solver="svd"),
        {"alpha": list(np.array(ALPHAS) * mean_eigenvalue(x))},
        cv=PredefinedSplit(np.arange(len(x)) % 5),
        scoring="neg_mean_squared_error",
    ).fit(x, targets(labels))
    ours = solve(streamed(x, labels))
    assert float(ours.alpha[0]) == pytest.approx(search.best_params_["alpha"])
    np.testing.assert_allclose(ours.cv_error[0], -search.cv_results_["mean_test_score"], rtol=1e-6)
    np.testing.assert_allclose(ours.weight[0], search.best_estimator_.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.bias[0], search.best_estimator_.intercept_, atol=1e-6)
    scores = ours.scores(torch.tensor(x), 0)
    np.testing.assert_allclose(scores, search.best_estimator_.predict(x), atol=1e-6)


def test_batches_and_order_of_updates_do_not_matter():
    x, labels = problem()
    whole, parts = solve(streamed(x, labels, batch=400)), solve(streamed(x, labels, batch=7))
    torch.testing.assert_close(whole.weight, parts.weight, rtol=1e-9, atol=1e-9)


def test_several_layers_equal_one_at_a_time():
    problems = [problem(seed=s)[0] for s in range(3)]
    labels = problem()[1]
    together = RidgeStats.zeros(3, 24, 6)
    together.update(torch.tensor(np.stack(problems)), torch.tensor(labels), torch.arange(400))
    fitted = solve(together)
    for i, x in enumerate(problems):
        torch.testing.assert_close(fitted.weight[i], solve(streamed(x, labels)).weight[0], rtol=1e-8, atol=1e-10)


def test_state_survives_saving():
    x, labels = problem()
    stats = streamed(x, labels)
    again = RidgeStats(**stats.state())
    assert torch.equal(solve(again).weight, solve(stats).weight)


def test_a_part_of_the_features_is_a_ridge_of_its_own():
    x, labels = problem()
    torch.testing.assert_close(
        solve(streamed(x, labels).part(slice(0, 10))).weight,
        solve(streamed(x[:, :10], labels)).weight,
        rtol=1e-9,
        atol=1e-12,
    )


def test_constant_and_rank_deficient_features_have_a_defined_result():
    labels = np.arange(60) % 6
    constant = solve(streamed(np.full((60, 24), 3.0), labels))
    assert torch.equal(constant.weight, torch.zeros_like(constant.weight))
    assert torch.allclose(constant.bias[0], torch.full((6,), 2 / 6 - 1, dtype=torch.float64))
    few = solve(streamed(np.random.default_rng(0).normal(size=(8, 24)), labels[:8]))
    assert torch.isfinite(few.weight).all()


def test_memory_does_not_grow_with_the_stream():
    stats = RidgeStats.zeros(2, 8, 3)
    size = sum(t.numel() for t in stats.state().values())
    for i in range(20):
        stats.update(torch.randn(2, 50, 8), torch.arange(50) % 3, torch.arange(50) + 50 * i)
    assert sum(t.numel() for t in stats.state().values()) == size
    assert stats.n == 1000


def test_one_image_is_refused():
    with pytest.raises(RequestError, match="at least 2"):
        solve(streamed(np.ones((1, 24)), np.zeros(1, int), n_folds=1))
