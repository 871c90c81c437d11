import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clsinterp.probing.metrics import identifiability, mean_interval, ranks, wilson


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_ranks_equal_a_stable_descending_sort(n_classes, seed):
    # few distinct values, so that ties are common
    logits = torch.randint(0, 4, (20, n_classes), generator=torch.Generator().manual_seed(seed)).float()
    labels = torch.arange(20) % n_classes
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    expected = [int(np.where(order[i] == labels[i].item())[0][0]) for i in range(20)]
    assert ranks(logits, labels).tolist() == expected


def test_all_equal_logits_rank_by_class_index():
    assert ranks(torch.zeros(3, 3), torch.arange(3)).tolist() == [0, 1, 2]


def test_nan_is_never_right():
    nan = float("nan")
    logits = torch.tensor([[nan, nan, nan], [nan, 1.0, 2.0], [0.0, nan, -1.0]])
    assert ranks(logits, torch.tensor([0, 1, 0])).tolist() == [2, 1, 0]
    assert ranks(logits, torch.tensor([2, 0, 1])).tolist() == [2, 2, 2]


def test_identifiability_is_one_at_the_top_and_one_over_c_at_the_bottom():
    assert identifiability(torch.tensor([0, 9]), 10).tolist() == pytest.approx([1.0, 0.1])


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_holds_the_proportion_and_solves_its_quadratic(hits, n):
    hits = min(hits, n)
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    z2 = 1.959963984540054**2
    for bound in (low, high):  # |p - bound| = z sqrt(bound (1 - bound) / n)
        if 0 < bound < 1:
            assert abs((hits / n - bound) ** 2 - z2 * bound * (1 - bound) / n) < 1e-9


def test_mean_interval_shrinks_with_the_root_of_n():
    values = torch.tensor([0.0, 1.0] * 50)
    low, high = mean_interval(values)
    assert low < 0.5 < high
    wide = high - low
    low, high = mean_interval(values.repeat(4))
    assert abs(wide / (high - low) - 2) < 0.02
