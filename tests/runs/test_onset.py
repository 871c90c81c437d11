import numpy as np
import pyarrow as pa
import pytest

from clsinterp.runs.onset import onsets

N = 200


def table(probe, shuffle, intact=0.9, seed=0):
    """Per-image ranks whose accuracies are about these, one per layer."""
    rng = np.random.default_rng(seed)
    draw = lambda share: np.where(rng.random(N) < share, 0, 3)  # noqa: E731
    columns = {"rank_intact": draw(intact), "rank_shuffle_-1": draw(0.0), "rank_probe_-1": draw(1.0)}
    columns |= {f"rank_probe_{i:02d}": draw(p) for i, p in enumerate(probe)}
    columns |= {f"rank_shuffle_{i:02d}": draw(p) for i, p in enumerate(shuffle)}
    return pa.table(columns)


def plain(images, n_classes, order):
    """The definitions, image by image: (decodable from, used from), ``L`` for never."""
    share = lambda name: np.mean([images[name][int(i)].as_py() == 0 for i in order])  # noqa: E731
    layers = sum(name.startswith("rank_probe") for name in images.column_names) - 1
    probe = [share(f"rank_probe_{i:02d}") for i in range(layers)]
    cost = [share("rank_intact") - share(f"rank_shuffle_{i:02d}") for i in range(layers)]
    can = share("rank_intact") - 1 / n_classes
    decodable = next(i for i in range(layers) if probe[i] >= max(probe) / 2)
    used = next((i for i in range(layers) if cost[i] >= can / 2), layers)
    return decodable, used


def test_onsets_are_the_definitions_and_the_embeddings_take_no_part():
    images = table(probe=[0.1, 0.3, 0.5, 0.8], shuffle=[0.9, 0.9, 0.6, 0.1])
    found = onsets(images, n_classes=10)
    assert (found["decodable_from"].layer, found["used_from"].layer) == plain(images, 10, range(N)) == (2, 3)


def test_a_swap_that_never_costs_half_is_never():
    used = onsets(table(probe=[0.5, 0.9], shuffle=[0.9, 0.7]), n_classes=10)["used_from"]
    assert used.layer is None
    assert str(used) == "never"


def test_the_interval_is_the_bootstrap_over_images():
    images = table(probe=[0.42, 0.5, 0.83], shuffle=[0.8, 0.52, 0.1])
    found = onsets(images, n_classes=10)
    rng = np.random.default_rng(99)
    draws = [plain(images, 10, rng.integers(N, size=N)) for _ in range(150)]
    for i, name in enumerate(("decodable_from", "used_from")):
        at = [draw[i] for draw in draws]
        low, high = found[name].ci
        assert np.mean([low <= x <= high for x in at]) >= 0.93
        assert {low, high} <= set(at)


def test_a_sure_layer_prints_without_an_interval():
    found = onsets(table(probe=[0.0, 1.0], shuffle=[1.0, 0.0], intact=1.0), n_classes=10)
    assert str(found["decodable_from"]) == "1"
    assert found["used_from"].to_json() == {"layer": 1, "ci": [1, 1]}


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_interval(seed):
    images = table(probe=[0.42, 0.83], shuffle=[0.5, 0.4])
    assert onsets(images, 10, seed) == onsets(images, 10, seed)
