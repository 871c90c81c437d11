"""Ridge probes against scikit-learn, with the accuracy of both."""

import importlib.util

import torch

from clsinterp.bench.models import N_LAYERS
from clsinterp.bench.timing import Row, compare
from clsinterp.errors import RequestError
from clsinterp.probing.ridge import ALPHAS, RidgeStats, solve


def probe_rows(quick: bool) -> list[Row]:
    """All layers, 5-fold cross-validation over the grid; scikit-learn goes layer by layer, as it must.

    Raises:
        RequestError: no scikit-learn.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise RequestError("the probes' bench compares with scikit-learn, which is not here; pip install scikit-learn.")
    import numpy as np
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import RandomizedSearchCV

    n, d, n_classes, layers = 10_000, 192, 50, 1 if quick else 2  # scikit-learn: on some layers, times as many
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2 * n) % n_classes
    centres = torch.randn(N_LAYERS, n_classes, d, generator=generator)
    everything = 0.25 * centres[:, labels] + torch.randn(N_LAYERS, 2 * n, d, generator=generator)
    x, held_out = everything[:, :n], everything[:, n:]
    y = (2 * torch.eye(n_classes)[labels[:n]] - 1).numpy()
    predicted: dict[str, list[torch.Tensor]] = {}

    def ours() -> None:
        stats = RidgeStats.zeros(N_LAYERS, d, n_classes)
        for start in range(0, n, 128):
            part = slice(start, start + 128)
            stats.update(x[:, part], labels[:n][part], torch.arange(n)[part])
        ridge = solve(stats)
        predicted["ours"] = [ridge.scores(held_out[i], i).argmax(-1) for i in range(layers)]

    def search() -> None:
        predicted["search"] = []
        for i in range(layers):
            asked = RandomizedSearchCV(Ridge(), {"alpha": np.logspace(-4, 8, 1000)}, n_iter=15, cv=5, random_state=0)
            found = asked.fit(x[i].numpy(), y).predict(held_out[i].numpy())
            predicted["search"].append(torch.from_numpy(found).argmax(-1))

    def leave_one_out() -> None:
        predicted["leave one out"] = []
        for i in range(layers):
            found = RidgeCV(alphas=np.logspace(-4, 8, len(ALPHAS))).fit(x[i].numpy(), y).predict(held_out[i].numpy())
            predicted["leave one out"].append(torch.from_numpy(found).argmax(-1))

    def accuracy(side: str) -> str:
        return f"{(torch.stack(predicted[side]) == labels[n:]).double().mean():.3f}"

    what = f"ridge probes, {N_LAYERS} layers, {n} x {d}, {n_classes} classes, 5 folds x {len(ALPHAS)} alphas"
    rows = []
    for name, side, theirs, target in (
        ("scikit-learn RandomizedSearchCV(Ridge, 15, cv=5)", "search", search, ">= 20"),
        ("scikit-learn RidgeCV", "leave one out", leave_one_out, ">= 5"),
    ):
        row = compare(what, name, target, ours, theirs, 2 if quick else 3, scale=N_LAYERS / layers)
        rows.append(Row(f"{what}; accuracy {accuracy('ours')} against {accuracy(side)}", *list(vars(row).values())[1:]))
    return rows
