"""The study of rereading: the layers of half read against resampled images, and on models of which the answer is known."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from study_scripts import script

from clsinterp.models.planted import planted
from clsinterp.studies.rereading.half import half_read, in_words
from clsinterp.studies.rereading.measure import Measured

L, N = 5, 150


def ranks(right):
    """Per-image ranks, one tensor per batch, of which those that are right are 0."""
    return [part.int() for part in (~right).split(64)]


@pytest.fixture(scope="module")
def found():
    """Knock-outs that cost more and more, with noise of every image's own."""
    draw = torch.Generator().manual_seed(3)
    hard = torch.rand(N, generator=draw)
    place = {("intact", None): hard < 0.9}
    place |= {("knock_until", x): (hard < 0.9 - 0.15 * x) & (torch.rand(N, generator=draw) < 0.9) for x in range(L)}
    place |= {("knock_from", x): (hard < 0.15 + 0.15 * x) & (torch.rand(N, generator=draw) < 0.9) for x in range(L)}
    return Measured({(where, "rank"): ranks(right) for where, right in place.items()})


def test_half_read_is_that_of_resampled_images(found):
    right = {where: (found.value(where, "rank") == 0).numpy() for where, _ in found.seen}

    def places(images):
        top = right["intact", None][images].mean()
        until, since = ([top - right[f"knock_{c}", x][images].mean() for x in range(L)] for c in ("until", "from"))
        half = until[-1] / 2 - 1e-9
        return min(x for x in range(L) if until[x] >= half), max(x for x in range(L) if since[x] >= half)

    generator = np.random.default_rng(7)
    drawn = np.array([places(generator.integers(N, size=N)) for _ in range(1000)])
    onsets = half_read(found, range(L), seed=7)
    assert tuple(o.layer for o in onsets) == places(np.arange(N))
    for i, onset in enumerate(onsets):
        assert onset.ci == tuple(np.percentile(drawn[:, i], [2.5, 97.5], method="nearest"))
        assert onset.ci[0] < onset.ci[1]
        assert onset.ci[0] <= onset.layer <= onset.ci[1]
    assert f"without blocks 0 to {onsets[0]}," in in_words(onsets)


def test_no_half_of_nothing_and_none_of_few_images(found):
    harmless = {**found.seen, (("knock_until", L - 1), "rank"): found.seen[("intact", None), "rank"]}
    for onset in half_read(Measured(harmless), range(L)):
        assert onset.layer is None
        assert "costs nothing beyond its interval (0.000)" in onset.reason
    few = Measured({key: parts[:1] for key, parts in found.seen.items()})
    assert "64 test images are too few" in in_words(half_read(few, range(L)))


@pytest.mark.parametrize(("case", "sink", "read"), [
    ({"probe_from": 1, "used_from": 2}, None, None),
    ({"probe_from": 0, "used_from": None, "reads": "patches", "sink": 1}, 1, None),
    ({"probe_from": 0, "used_from": 1, "used_until": 2, "reads": "patches"}, None, 2),
], ids=["CLS reads in one block", "patches park in one block", "patches read in one block"])  # fmt: skip
def test_the_study_finds_what_was_planted(case, sink, read, tmp_path):
    built = planted(**case, n_layers=4, n_classes=3)
    built.save(tmp_path / "model")
    built.write_images(tmp_path / "data", 4, (30, 40, 50))
    out = tmp_path / "out"
    words = ("--data", tmp_path / "data", "--out", out, "--workers", "0", "--batch-size", "120")  # one mean for all
    script("rereading").main([str(word) for word in (tmp_path / "model", *words)])
    table = pq.read_table(out / "rereading.parquet").to_pylist()
    cost = {(r["curve"], r["layer"]): r["value"] for r in table if r["metric"] == "cost"}
    half = {r["curve"]: (r["value"], r["ci_low"], r["ci_high"]) for r in table if r["metric"] == "layer"}
    for layer in range(4):
        lost_sink, misread = sink is not None and layer >= sink, read is not None and layer >= read
        assert cost["knock_patches_until", layer] == lost_sink
        # The mean CLS token says the most frequent label, right for 50 of 120.
        assert cost["mean_kv_patches_until", layer] == pytest.approx(7 / 12 * misread)
        assert cost["sink_patches_until", layer] == pytest.approx(lost_sink - 7 / 12 * misread)
    said = (out / "summary.md").read_text()
    if case["used_from"] is None:
        assert not half
        assert "no layer by which half was read: never reading costs nothing" in said
    else:
        b = case["used_from"]
        assert half == {f"half_read_{c}": (b, b, b) for c in ("until", "from")}
        assert f"without blocks 0 to {b}, and without those from {b} on" in said
        assert f"without blocks 0 to {b}, and" in (out / "figure.html").read_text()
        assert [cost["mean_kv_until", x] for x in range(4)] == pytest.approx([7 / 12 * (x >= b) for x in range(4)])
        assert [cost["sink_until", x] for x in range(4)] == pytest.approx([1 / 6 * (x >= b) for x in range(4)])
