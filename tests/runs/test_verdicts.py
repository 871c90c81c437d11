import numpy as np
import pyarrow as pa
import pytest

from clsinterp.runs.verdicts import verdicts

N = 200


def table(probe, shuffle, intact=0.9, seed=0, n=N, n_classes=10, shares=None, follows=()):
    """A run's per-image table with about these accuracies, one per layer.

    Labels are drawn from `shares`; where a swap makes the answer wrong, it is the next class, or, at layers in `follows`, the
    donor's intact answer throughout.
    """
    rng = np.random.default_rng(seed)
    label = rng.choice(n_classes, size=n, p=shares)
    donor = rng.permutation(n)
    right = lambda share: rng.random(n) < share  # noqa: E731
    answer = np.where(right(intact), label, (label + 1) % n_classes)
    columns = {"index": np.arange(n), "label": label, "donor": donor, "answer_intact": answer}
    columns["rank_intact"] = np.where(answer == label, 0, 3)
    columns |= {"rank_shuffle_-1": np.full(n, 3), "rank_probe_-1": np.zeros(n, int)}
    for i, share in enumerate(probe):
        columns[f"rank_probe_{i:02d}"] = np.where(right(share), 0, 3)
    for i, share in enumerate(shuffle):
        hit = answer[donor] == label if i in follows else right(share)
        columns[f"rank_shuffle_{i:02d}"] = np.where(hit, 0, 3)
    return pa.table(columns)


def plain(images, order):
    """The definitions, image by image: (decodable from, used from), ``L`` for never."""
    rows = images.to_pylist()
    share = lambda right: np.mean([right(rows[int(i)]) for i in order])  # noqa: E731
    layers = sum(name.startswith("rank_probe") for name in images.column_names) - 1
    labels = [row["label"] for row in rows]
    common = max(set(labels), key=labels.count)
    probe = [share(lambda r, i=i: r[f"rank_probe_{i:02d}"] == 0) for i in range(layers)]
    left = [share(lambda r, i=i: r[f"rank_shuffle_{i:02d}"] == 0) for i in range(layers)]
    intact = share(lambda r: r["rank_intact"] == 0)
    floor = share(lambda r: rows[r["donor"]]["answer_intact"] == r["label"])
    chance = share(lambda r: r["label"] == common)
    decodable = next(i for i in range(layers) if probe[i] >= chance + (max(probe) - chance) / 2 - 1e-9)
    used = next((i for i in range(layers) if intact - left[i] >= (intact - floor) / 2 - 1e-9), layers)
    return decodable, used


def of(images, n_classes=10, **options):
    return verdicts(images, range(n_classes), **options)


def test_the_verdicts_are_the_definitions_and_the_embeddings_take_no_part():
    images = table(probe=[0.1, 0.3, 0.6, 0.8], shuffle=[0.9, 0.9, 0.6, 0.1])
    found = of(images)
    assert (found.decodable_from.layer, found.used_from.layer) == plain(images, range(N)) == (2, 3)


def test_an_output_that_follows_the_donor_is_used_whatever_the_classes():
    """Two of ten classes at 77 to 23: following the donor completely leaves .65, far above 1 / C."""
    shares = [0.77, 0.23] + [0] * 8
    images = table([0.9] * 3, [0.96, 0.9, 0], intact=0.965, shares=shares, n=1000, follows={2})
    found = of(images)
    assert found.floors["use"] == pytest.approx(0.77**2 + 0.23**2, abs=0.03)
    assert found.used_from.layer == 2
    assert found.floors["availability"] == pytest.approx(0.77, abs=0.03)


def test_a_swap_that_never_costs_half_is_never():
    used = of(table(probe=[0.5, 0.9], shuffle=[0.9, 0.7])).used_from
    assert used.layer is None
    assert used.reason is None
    assert str(used) == "never"


@pytest.mark.parametrize("seed", range(20))
def test_a_model_at_chance_gets_no_layer(seed):
    images = table([0.1] * 12, [0.1] * 12, intact=0.1, seed=seed, n=500, n_classes=10)
    found = of(images)
    assert found.used_from.layer is None
    assert "not above" in found.used_from.reason
    assert str(found.used_from) == "n/a"


def test_probes_at_the_majority_share_decode_nothing_until_they_do():
    half = table([0.5, 0.5, 0.5, 0.95], [0.9] * 4, n=600, n_classes=2)
    assert of(half, 2).decodable_from.layer == 3
    never = of(table([0.5] * 12, [0.9] * 12, n=600, n_classes=2), 2).decodable_from
    assert never.layer is None
    assert "most frequent label" in never.reason


def test_few_images_get_no_verdict():
    found = of(table([0.9], [0.1], n=99))
    assert (
        found.used_from.reason == found.decodable_from.reason == "99 test images are too few; at least 100 are needed"
    )
    assert of(table([0.9], [0.1], n=100)).used_from.layer == 0


def test_without_a_layer_from_zero_on_there_is_no_verdict():
    found = of(table([], []))
    assert "no layer from 0 on" in found.used_from.reason


def test_without_donors_the_floor_is_the_best_constant_answer():
    shares = [0.6, 0.4]
    images = table([0.9], [0.6], shares=shares, n_classes=2, n=500)
    images = images.set_column(images.column_names.index("donor"), "donor", pa.nulls(500, pa.int32()))
    found = of(images, 2)
    assert found.floors["use"] == found.floors["availability"] == max(np.bincount(images["label"].to_numpy())) / 500


def test_several_swaps_of_an_image_count_as_one_image():
    one = table([0.4, 0.9], [0.8, 0.1])
    twice = pa.concat_tables([one, one])
    assert of(twice) == of(one)


def test_labels_may_be_other_numbers_than_classes():
    images = table([0.9], [0.1], n_classes=2)
    moved = [7, 3]
    answers = pa.array([moved[a] for a in images["answer_intact"].to_pylist()])
    there = images.set_column(images.column_names.index("answer_intact"), "answer_intact", answers)
    assert verdicts(there, moved) == verdicts(images, range(2))


def test_the_interval_is_the_bootstrap_over_images():
    images = table(probe=[0.42, 0.5, 0.83], shuffle=[0.8, 0.52, 0.1])
    found = of(images)
    rng = np.random.default_rng(99)
    draws = [plain(images, rng.integers(N, size=N)) for _ in range(150)]
    for i, onset in enumerate((found.decodable_from, found.used_from)):
        at = [draw[i] for draw in draws]
        low, high = onset.ci
        assert np.mean([low <= x <= high for x in at]) >= 0.93
        assert {low, high} <= set(at)


def test_a_sure_layer_prints_without_an_interval():
    found = of(table(probe=[0.0, 1.0], shuffle=[1.0, 0.0], intact=1.0))
    assert str(found.decodable_from) == "1"
    assert found.used_from.to_json() == {"layer": 1, "ci": [1, 1], "reason": None}


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_interval(seed):
    images = table(probe=[0.42, 0.83], shuffle=[0.5, 0.4])
    assert of(images, seed=seed) == of(images, seed=seed)
