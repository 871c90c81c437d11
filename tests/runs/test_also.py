"""What a run measures beside the note: rereading, on models of which the answer is known, and against the study."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from command_line import invoke_flat as invoke

from clsinterp.errors import RequestError
from clsinterp.figures import also
from clsinterp.models.planted import planted
from clsinterp.runs import extras
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.results import read_run
from clsinterp.runs.run import run
from clsinterp.sweeps import knock
from clsinterp.sweeps.columns import BESIDE, column
from clsinterp.sweeps.cuts import reads_nothing
from clsinterp.sweeps.plan import Edit

L = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model whose CLS token reads patches in block 2, and its images."""
    here = tmp_path_factory.mktemp("also")
    model = planted(1, 2, n_layers=L)
    model.save(here / "model")
    model.write_images(here / "data", 4, 26)
    return here


def request(built, **options):
    return Request(str(built / "model"), str(built / "data"), batch_size=32, **options)


def test_the_run_says_what_was_built(built):
    asked = request(built, also=("rereading",), swaps=2, layers=(-1, 0, 1, 2, 3))
    report, curves = read_run(run(asked, built / "run", resources=Resources("cpu", workers=0)))
    assert report.identity.request.also == ("rereading",)
    points = {(r["curve"], r["layer"], r["metric"]): r for r in curves.to_pylist()}
    for layer in range(L):
        for curve, blind in (("knock_until", layer >= 2), ("knock_from", layer <= 2), ("knock_patches_until", False)):
            accuracy, cost, same = (points[curve, layer, m] for m in ("accuracy", "cost", "agreement"))
            assert (accuracy["value"], cost["value"], same["value"]) == ((0.25, 0.75, 0.25) if blind else (1, 0, 1))
            assert (cost["ci_low"] < cost["value"]) == blind  # paired: where nothing changes there is nothing to doubt
            assert accuracy["mode"] is None
            assert accuracy["n"] == 104
    windows = {layer: points["knock_at", layer, "accuracy"]["value"] for layer in (0, 1)}
    assert windows == {0: 0.25, 1: 0.25}
    assert ("knock_at", 2, "accuracy") not in points
    images = pq.read_table(built / "run" / "images.parquet")
    first, second = (images.filter([k == swap for k in images["swap"].to_pylist()]) for swap in (0, 1))
    for curve in ("knock_until", "knock_from"):
        name = column(curve, 2, kind="answer")
        assert first.sort_by("index")[name] == second.sort_by("index")[name]
        assert set(first[name].to_pylist()) == {0}
    assert "reads nothing in blocks" in (built / "run" / "figure.html").read_text()


def test_it_is_part_of_what_a_run_is(built):
    plain = run(request(built), built / "plain", resources=Resources("cpu", workers=0))
    assert not {r["curve"] for r in read_run(plain).curves.to_pylist()} & set(BESIDE)
    assert read_run(plain).report.identity.request.also == ()
    old = json.loads((plain / "run.json").read_text())["identity"]
    del old["also"]  # of a run from before there was such a thing
    assert Request.of_json(old) == request(built)
    assert request(built, also=("rereading", "rereading")).also == ("rereading",)
    with pytest.raises(RequestError, match=r"also='rerading' was given; some of .*rereading"):
        request(built, also=("rerading",))
    code, text = invoke(
        "run", built / "model", "--data", built / "data", "--out", built / "x", "--also", "tea,rereading"
    )
    assert code == 2
    assert "--also tea was given" in " ".join(text.split())
    assert not (built / "x").exists()


def test_the_label_comes_back_where_a_block_writes_it(tmp_path):
    """Classes of unequal size, as what a token without its label says is the most frequent class: right for a third."""
    wrote, used = 1, 2
    model = planted(wrote, used, n_layers=L, n_classes=3)
    model.save(tmp_path / "model")
    model.write_images(tmp_path / "data", (10, 20, 30), 12)
    asked = Request(str(tmp_path / "model"), str(tmp_path / "data"), batch_size=32, also=("erasure",))
    curves = read_run(run(asked, tmp_path / "run", resources=Resources("cpu", workers=0))).curves.to_pylist()
    points = {(r["curve"], r["layer"], r["probed_layer"]): r["value"] for r in curves if r["metric"] == "accuracy"}
    for layer in range(L):
        assert points["erased", layer, None] == pytest.approx(1 / 3 if layer >= used else 1)
        assert points["probe_after_erasure", layer, None] == pytest.approx(1 / 3)
        for probed in range(layer + 1, L):
            back = layer < used <= probed or layer < wrote <= probed
            assert points["intact_probe_after_erasure", layer, probed] == pytest.approx(1 if back else 1 / 3)


def test_an_extra_may_be_fitted_from_the_statistics_that_are_there(built, monkeypatch):
    """A unit of the stage solve for each layer; its tensors reach the edits stacked, in the order of the layers."""
    seen = {}

    def edits(model, layers, fitted):
        seen.update(fitted)
        return {("knock_until", layer): Edit(cuts={layer: reads_nothing(model.layout)}) for layer in layers}

    fit = lambda stats, alphas: {"mean": stats.class_sums.sum((0, 1, 2)) / stats.counts.sum()}  # noqa: E731
    monkeypatch.setitem(extras.EXTRAS, "means", extras.Extra(edits, fit))
    out = run(request(built, also=("means",), layers=(0, 3)), built / "fitted", resources=Resources("cpu", workers=0))
    assert seen["mean"].shape[0] == 2
    assert torch.equal(seen["mean"][0], seen["mean"][0])
    assert not torch.equal(seen["mean"][0], seen["mean"][1])
    assert {r["layer"] for r in read_run(out).curves.to_pylist() if r["curve"] == "knock_until"} == {0, 3}


def test_the_window_that_is_drawn_is_the_one_that_is_measured():
    assert also.WINDOW == knock.WINDOW
