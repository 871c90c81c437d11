"""``clsinterp note``: everything up to the weights, with random ones under the published names."""

import json
import shutil

import pytest
from command_line import invoke, invoke_flat

from clsinterp.figures.note import published_curves
from clsinterp.runs import published
from clsinterp.runs.published import expected, requests

FAMILY = {"vit": "vit", "deit": "deit", "beit": "beit-mean", "dinov2": "dinov2", "clip": "clip"}


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    """The five names as folders that look like the hub's: BEiT reads the patch mean, DINOv2 and CLIP have no classifier."""
    monkeypatch.chdir(tmp_path)
    for key, name in published_curves()["checkpoints"].items():
        shutil.copytree(checkpoint(FAMILY[key]), tmp_path / name)


def test_the_settings_are_the_notes():
    asked = requests("ILSVRC/imagenet-1k")
    assert {key: r.model for key, r in asked.items()} == published_curves()["checkpoints"]
    for request in asked.values():
        assert (request.train_per_class, request.test_split, request.batch_size) == (200, "validation", 128)
        assert request.final_norm is False
    assert asked["beit"].config == {"use_mean_pooling": False}


def test_the_five_run_resume_and_are_drawn_over_the_published_curves(hub, folder, tmp_path):
    options = ("--data", folder, "--out", "out", "--test-split", "test", "--train-per-class", 8, "--workers", 0)
    code, text = invoke_flat("note", *options, "--limit", 40)
    assert code == 0, text
    assert "at least" in text
    for key in published.TOKENS:
        assert json.loads((tmp_path / "out" / key / "run.json").read_text())["model"] == requests("x")[key].model
    assert "published probe" in (tmp_path / "out" / "figure.html").read_text()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/curves.parquet")}
    shutil.rmtree(tmp_path / "out" / "clip")
    assert invoke("note", *options, "--limit", 40)[0] == 0
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/curves.parquet")}
    assert {p: t for p, t in again.items() if p.parent.name != "clip"} == {
        p: t for p, t in kept.items() if p.parent.name != "clip"
    }
    code, text = invoke_flat("note", *options, "--limit", 32)
    assert (code, "other settings" in text) == (2, True), text


def test_the_expected_time_grows_with_the_images():
    one, two = expected(1000, 100), expected(2000, 200)
    assert two.gpu == pytest.approx(2 * one.gpu)
    d = 768
    flops = 0
    for key, t in published.TOKENS.items():
        block = 2 * t * (4 * d**2 + 2 * d * 3072) + 4 * t * t * d
        of_one_token = 4 * t * d**2 + 2 * (2 * d**2 + 2 * d * 3072) + 4 * t * d
        last = block if key in ("dinov2", "clip") else of_one_token
        flops += (1000 * 12 + 100 * 66) * block + 100 * 12 * last
    assert one.gpu == pytest.approx(flops / 19.5e12)
