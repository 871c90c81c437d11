"""Agreement, bootstrap, crossing, tidy tables: pure functions against independent computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clsinterp.errors import RequestError
from clsinterp.probing.metrics import wilson
from clsinterp.studies import tidy
from clsinterp.studies.class_space import cuts as perturbation
from clsinterp.studies.command import markdown
from clsinterp.studies.donors import bootstrap, donor
from clsinterp.studies.readouts import agreement


def scores(readers=3, n=8, classes=6, seed=0):
    return torch.randn(readers, n, classes, generator=torch.Generator().manual_seed(seed))


def test_rank_correlation_is_scipys_spearman_averaged_over_images():
    s = scores()
    found = agreement.rank_correlation(s)
    for a in range(3):
        for b in range(3):
            each = [stats.spearmanr(s[a, i], s[b, i]).statistic for i in range(8)]
            assert float(found[a, b]) == pytest.approx(np.mean(each), abs=1e-9)


def test_agreement_counts_what_a_loop_counts():
    s = scores(4, 50)
    labels = torch.arange(50) % 6
    right = s.argmax(-1) == labels
    grid = agreement.compare(s, right)
    for a in range(4):
        for b in range(4):
            ra, rb = right[a].numpy(), right[b].numpy()
            assert float(grid["both right"][a, b]) == pytest.approx(np.mean(ra & rb))
            assert float(grid["both wrong"][a, b]) == pytest.approx(np.mean(~ra & ~rb))
            assert float(grid["one right"][a, b]) == pytest.approx(np.mean(ra ^ rb))
            assert float(grid["phi"][a, b]) == pytest.approx(np.corrcoef(ra, rb)[0, 1])
            same = np.mean(s[a].argmax(-1).numpy() == s[b].argmax(-1).numpy())
            assert float(grid["same answer"][a, b]) == pytest.approx(same)


def test_averages_start_with_the_last_reader_and_weigh_all_alike():
    s = scores()
    s = s.double()
    scaled = s * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1) + 7
    torch.testing.assert_close(agreement.averages(s), agreement.averages(scaled))
    found = agreement.averages(s)
    assert torch.equal(found[0].argmax(-1), s[2].argmax(-1))
    unit = [(x - x.mean(-1, keepdim=True)).double() for x in s]
    unit = [x / x.norm(dim=-1, keepdim=True) for x in unit]
    torch.testing.assert_close(found[1], (unit[2] + unit[1]) / 2, rtol=1e-5, atol=1e-6)


def test_bootstrap_interval_of_a_mean_is_close_to_the_normal_one():
    x = torch.rand(400, 1, generator=torch.Generator().manual_seed(1))
    found = bootstrap.interval(lambda mean: float(mean[0]), x, draws=3000)
    half = 1.96 * float(x.double().std()) / 20
    assert found.value == pytest.approx(float(x.double().mean()))
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)
    assert found == bootstrap.interval(lambda mean: float(mean[0]), x, draws=3000)
    assert found != bootstrap.interval(lambda mean: float(mean[0]), x, draws=3000, seed=1)


def test_bootstrap_says_in_how_many_draws_a_number_exists():
    x = torch.tensor([[1.0], [0.0]] * 50)
    found = bootstrap.interval(lambda mean: float(mean[0]) if mean[0] > 0.5 else math.nan, x)
    assert math.isnan(found.value)
    assert 0.35 < found.exists < 0.55
    assert found.low > 0.5
    never = bootstrap.interval(lambda mean: math.nan, x, draws=10)
    assert (never.exists, str(never)) == (0.0, "none")
    assert math.isnan(never.low)


def test_crossing_is_where_the_lines_meet():
    host = torch.tensor([0.9, 0.8, 0.6, 0.2, 0.1])
    follow = torch.tensor([0.0, 0.1, 0.2, 0.4, 0.8])
    # between layers 2 and 3 the difference goes from -0.4 to 0.2
    assert donor.crossing(host, follow) == pytest.approx(2 + 0.4 / 0.6)
    assert math.isnan(donor.crossing(follow, host * 0 + follow))
    assert math.isnan(donor.crossing(host, torch.zeros(5)))
    assert donor.crossing(torch.zeros(3), torch.ones(3)) == 0
    twice = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # the last crossing counts
    assert donor.crossing(torch.zeros(4), twice) == pytest.approx(2.5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9))
def test_area_between_is_numpys_trapezoid_over_depth(points):
    a, b = (np.array(v) for v in zip(*points, strict=True))
    found = donor.area_between(torch.tensor(a), torch.tensor(b))
    assert found == pytest.approx(np.trapezoid(a - b) / (len(a) - 1), abs=1e-9)
    assert -1 <= found <= 1


def swapped(n=3000, layers=5, classes=10, seed=0):
    """Host and donor labels of a cross-label swap, a generator, and answers (n, layer) drawn without looking at either."""
    g = torch.Generator().manual_seed(seed)
    own = torch.randint(classes, (n,), generator=g)
    other = (own + torch.randint(1, classes, (n,), generator=g)) % classes
    return own, other, g, torch.randint(classes, (n, layers), generator=g)


def mixed(a, b, share, g):
    """Entries of `a` (n,), or of `b` (n, layer) with probability `share` for each layer."""
    return torch.where(torch.rand(b.shape, generator=g) < share, b, a.unsqueeze(1))


def test_numbers_of_a_model_follow_from_its_curves():
    own, other, g, guess = swapped(200)
    output = mixed(own, other.unsqueeze(1).expand(-1, 5), torch.linspace(0.05, 0.95, 5), g)
    followed = donor.Followed(own, other, output, mixed(other, guess, 0.2, g))
    found = donor.numbers(followed, draws=200)
    h, d, r = (x.double().mean(0) for x in (followed.host, followed.donor, followed.read))
    assert found.crossing.value == pytest.approx(donor.crossing(h, d))
    assert found.gap.low < found.gap.value < found.gap.high
    assert found.crossing.exists == 1
    # chance: the share of donors of images of the same label that would have been named as well, pair by pair
    areas = []
    for answers, hits in ((followed.probe, r), (followed.output, d)):
        chance = [
            np.mean([np.mean((other[own == own[i]] == answers[i, j]).numpy()) for i in range(200)]) for j in range(5)
        ]
        areas.append((hits.numpy() - chance) / (1 - np.array(chance)))
    assert found.gap.value == pytest.approx(donor.area_between(*map(torch.tensor, areas)))


@pytest.mark.parametrize("mode", ["cross_label", "permute"])
def test_what_is_named_by_chance_is_no_gap(mode):
    own, other, g, guess = swapped()
    if mode == "permute":
        other = own[torch.randperm(len(own), generator=g)]
    right = own.unsqueeze(1).expand(-1, 5)
    deaf = mixed(own, guess, 0.3, g)  # an output that never hears of the donor, right in most images
    follows = other.unsqueeze(1).expand(-1, 5)

    def gap(output, probe):
        return donor.numbers(donor.Followed(own, other, output, probe), draws=50).gap.value

    assert gap(deaf, guess) == pytest.approx(0, abs=0.01)  # a probe that guesses; by counting hits it was 0.1 - 0.03
    assert gap(deaf, torch.full_like(guess, 3)) == pytest.approx(0, abs=0.01)  # one that always says the same
    assert gap(guess, guess) == pytest.approx(0, abs=1e-9)
    assert gap(follows, follows) == pytest.approx(0, abs=1e-9)
    assert gap(right, follows) == pytest.approx(1, abs=0.01)  # all can be read, nothing is used
    assert gap(follows, guess) == pytest.approx(-1, abs=0.02)
    half = mixed(other, guess, 0.5, g)
    assert gap(deaf, half) == pytest.approx(0.5, abs=0.03)


def test_no_gap_where_the_own_label_tells_the_donors():
    own = torch.arange(20) % 2
    found = donor.Followed(own, 1 - own, own.unsqueeze(1), own.unsqueeze(1))
    with pytest.raises(RequestError, match="mode='permute'"):
        donor.numbers(found, draws=5)


def test_confusability_is_symmetric_and_counts_both_ways():
    logits, labels = scores(1, 12, 4)[0], torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 0, 1, 2])  # class 3 has no image
    found = donor.confusability(logits, labels)
    p = torch.softmax(logits.double(), -1)
    assert float(found[0, 1]) == pytest.approx(float((p[labels == 0, 1].mean() + p[labels == 1, 0].mean()) / 2))
    assert float(found[3, 2]) == pytest.approx(float(p[labels == 2, 3].mean()))
    torch.testing.assert_close(found, found.mT)
    assert torch.equal(found.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert donor.thirds(torch.arange(9.0)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_tidy_rows_carry_their_intervals():
    rows = tidy.Rows(model="m")
    assert rows.share(torch.tensor([True, True, False, False]), curve="a", layer=0) == 0.5
    rows.mean(torch.tensor([1.0, 2.0, 3.0]), curve="b", layer=0)
    rows.add(0.25, curve="b", layer=1)
    table = rows.table()
    assert table.column_names == ["model", "curve", "layer", "value", "ci_low", "ci_high", "n"]
    a, b, c = table.to_pylist()
    assert (a["ci_low"], a["ci_high"], a["n"]) == (*wilson(2, 4), 4)
    assert (b["value"], b["n"]) == (2.0, 3)
    assert b["ci_low"] == pytest.approx(2 - 1.959964 / math.sqrt(3))
    assert c["ci_low"] is None
    assert tidy.wide(table, "layer", "curve").to_pylist() == [
        {"layer": 0, "a": 0.5, "b": 2.0},
        {"layer": 1, "a": None, "b": 0.25},
    ]
    assert "| 0 | 0.500 | 2.000 |" in markdown(tidy.wide(table, "layer", "curve"))


def test_tokens_of_an_image_are_not_independent():
    rows, draw = tidy.Rows(), torch.Generator().manual_seed(0)
    images = torch.rand(80, generator=draw) < 0.3
    k = int(images.sum())
    assert rows.share(images.unsqueeze(1).expand(-1, 49), curve="alike") == pytest.approx(k / 80)
    rows.share(torch.rand(80, 49, generator=draw) < 0.3, curve="independent")
    rows.share(images.unsqueeze(1), curve="one token")
    rows.share(torch.zeros(80, 49, dtype=torch.bool), curve="never")
    each = torch.rand(80, 1, generator=draw)
    rows.share(torch.rand(80, 49, generator=draw) < each, curve="between")
    alike, _, one, never, _ = rows.rows
    ends = ("ci_low", "ci_high")
    # 49 copies of one answer say what the answer says
    assert [alike[e] for e in ends] == pytest.approx(wilson(k, 80))
    assert [one[e] for e in ends] == pytest.approx(wilson(k, 80))
    assert {r["n"] for r in rows.rows} == {80}
    assert (never["ci_low"], never["ci_high"]) == wilson(0, 80)
    width = {r["curve"]: r["ci_high"] - r["ci_low"] for r in rows.rows}
    assert width["independent"] == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / (80 * 49)), rel=0.25)
    assert width["between"] == pytest.approx(2 * 1.96 * math.sqrt((1 / 12 + 1 / 6 / 49) / 80), rel=0.15)


def test_area_under_a_curve_and_top_patches():
    assert perturbation.area([0.0, 0.5, 1.0], [0.0, 1.0, 1.0]) == pytest.approx(0.75)
    relevance = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    assert perturbation.top(relevance, 2).tolist() == [[False, True, True, False]]
    assert perturbation.top(relevance, 1, first=False).tolist() == [[True, False, False, False]]
