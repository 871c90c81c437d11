import json
import re
import subprocess
import sys

import pytest
from command_line import invoke, invoke_flat

import clsinterp
from clsinterp.errors import RequestError
from clsinterp.parse import parse_layers


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("what", ["import clsinterp", "from clsinterp.cli import main"])
def test_nothing_heavy_is_imported_until_it_is_needed(what):
    heavy = ("torch", "transformers", "nnsight", "datasets", "plotly", "numpy", "pyarrow")
    found = python(f"import sys; {what}; print([m for m in {heavy} if m in sys.modules])")
    assert found.strip() == "[]"


@pytest.mark.parametrize(
    "asked", [("run", "zoo/vit", "--data"), ("note", "--data"), ("explore", "--data"), ("demo", "--photos")]
)
def test_mistyped_data_are_refused_before_anything_heavy_is_imported(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (tmp_path / "photos").mkdir()
    code = f"""
import sys
from clsinterp.data import hub
from clsinterp.cli import app
hub.reachable = lambda: False
try:
    app([*{asked}, "photso"])
finally:
    print([m for m in ("torch", "transformers", "datasets") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert "Near: photos." in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        (("run", "zoo/vti", "--data", "zoo"), "zoo/vit"),
        (("run", "google/vit-base-patch16-24", "--data", "zoo"), "google/vit-base-patch16-224"),
        (("lens", "./ckp", "zoo/photos/cat.jpg"), "ckpt"),
        (("lens", "zoo/vit", "cta.png"), "cat.png"),
        (("explore", "vti"), "zoo/vit"),
        (("check", "dinov2-smal"), "zoo/dinov2-small"),
    ],
)
def test_a_mistyped_model_is_refused_before_anything_heavy_is_imported(asked, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "config.json").write_text("{}")
    (tmp_path / "cat.png").touch()
    code = f"""
import sys
from clsinterp.cli import app
try:
    app([*{asked}])
finally:
    print([m for m in ("torch", "transformers", "datasets") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert re.search(rf"Near: .*\b{near}\b", done.stderr), done.stderr
    assert done.returncode == 2


def test_a_mistyped_model_is_refused_in_the_same_words_by_the_library():
    for typed in ("zoo/vti", "./nowhere", "google/vit-base-patch16-24", "~nobody.at.all/x", "a\0b"):
        with pytest.raises(RequestError) as error:
            clsinterp.VisionModel(typed)
        status, text = invoke_flat("run", typed, "--data", "zoo")
        assert status == 2
        assert " ".join(str(error.value).split()) in text


def test_help_and_package_contents():
    code, text = invoke("--help")
    assert code == 0
    for command in ("demo", "run", "figure", "lens", "explore", "check", "models"):
        assert command in text
    assert clsinterp.VisionModel.__name__ == "VisionModel"


def test_check_reports_every_finding(checkpoint):
    code, text = invoke("check", checkpoint("dinov2"))
    assert code == 0, text
    for claim in (
        "logits equal Hugging Face's to the last bit",
        "token view .cls reads and writes",
        "fork equals",
    ):
        assert claim in text
    assert "FAIL" not in text


def test_check_of_something_that_is_no_checkpoint_exits_2(tmp_path):
    code, text = invoke("check", tmp_path)
    assert code == 2
    assert "config.json" in text


def test_models_lists_families_zoo_and_published_ids():
    code, text = invoke("models")
    assert code == 0
    for name in ("vit", "dinov2-registers", "zoo/vit", "google/vit-base-patch16-224"):
        assert name in text


def test_a_user_mistake_shows_no_traceback(checkpoint, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "clsinterp.cli", "run", checkpoint("vit"), "--data", tmp_path / "nowhere"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert "nowhere" in done.stderr
    assert done.stdout == ""


def test_wrong_options_exit_2():
    assert invoke("run", "zoo/vit", "--data", "zoo", "--mode", "shuffle")[0] == 2
    assert invoke("run", "zoo/vit")[0] == 2
    assert invoke("frobnicate")[0] == 2


def test_published_curves_name_their_source():
    from clsinterp.figures.note import published_curves

    data = published_curves()
    assert data["source"].startswith("https://")
    assert all(len(v) == 12 for curves in data["curves"].values() for v in curves.values() if isinstance(v, list))
    json.dumps(data)


def test_demo_runs_every_model_and_says_what_is_missing(checkpoint, folder, tmp_path, monkeypatch):
    from clsinterp.runs import demo
    from clsinterp.runs.request import Request

    asked = [Request(model=str(checkpoint(f)), data=str(folder), batch_size=16, limit=20) for f in ("dinov2", "vit")]
    monkeypatch.setattr(demo, "requests", lambda: (asked, ["zoo/dinov2-small"]))
    code, text = invoke("demo", "--out", tmp_path / "demo")
    assert code == 0, text
    assert "clsinterp zoo fetch dinov2-small" in text
    assert text.count("no verdict, since 20 test images are too few") == 2
    lines = (tmp_path / "demo" / "summary.md").read_text().splitlines()
    assert lines[0].startswith("| model | n | intact | floor |")
    assert [line.split(" | ")[1] for line in lines[2:]] == ["20", "20"]
    page = (tmp_path / "demo" / "figure.html").read_text()
    assert page.count("the lens names the label of") >= 2
    assert len(list((tmp_path / "demo").glob("*/curves.parquet"))) == 2


def test_the_demo_puts_the_real_checkpoint_first_once_it_was_fetched(tmp_path, monkeypatch):
    from clsinterp.models.source import zoo_names
    from clsinterp.runs import demo

    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path))
    asked, missing = demo.requests()
    assert missing == ["zoo/dinov2-small"]
    assert [r.model for r in asked] == [f"zoo/{name}" for name in demo.SMALL if name in zoo_names()]
    real = tmp_path / "zoo" / "dinov2-small"
    real.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (real / name).touch()
    asked, missing = demo.requests()
    assert not missing
    assert asked[0].model == "zoo/dinov2-small"


def test_the_demo_on_photos_is_the_readmes_run(checkpoint, folder, tmp_path, monkeypatch):
    """Of a folder all photos, of the hub's Imagenette as many as there were; here with a tiny checkpoint of the same family."""
    import shutil

    from datasets import load_dataset

    from clsinterp.data.named import NAMED
    from clsinterp.runs import demo
    from clsinterp.runs.results import read_run

    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path / "cache"))
    code, text = invoke("demo", "--photos", folder, "--out", tmp_path / "none")
    assert (code, "clsinterp zoo fetch dinov2-small" in text) == (2, True), text
    shutil.copytree(checkpoint("dinov2"), tmp_path / "cache" / "zoo" / "dinov2-small")
    assert demo.on_photos("imagenette").train_per_class == 250
    assert demo.on_photos("imagenette").image_size == 224
    monkeypatch.setitem(demo.PHOTOS, "image_size", 24)
    code, text = invoke("demo", "--photos", folder, "--out", tmp_path / "folder")
    assert code == 0, text
    assert "not the README's first picture" not in text
    monkeypatch.setattr(demo, "OF_A_DATA_SET", {"train_per_class": 8, "test_per_class": 4})
    local = {}
    for split, name in (("train", "train"), ("test", "validation")):
        local[name] = str(tmp_path / f"{name}.parquet")
        load_dataset(str(folder), split=split).to_parquet(local[name])
    monkeypatch.setitem(NAMED, "imagenette", local)
    code, text = invoke("demo", "--photos", "imagenette", "--out", tmp_path / "hub")
    assert code == 0, text
    counts = {
        at: read_run(next((tmp_path / at).glob("*/run.json")).parent).report.manifest.counts for at in ("folder", "hub")
    }
    assert (counts["folder"].train, counts["folder"].test) == (84, 42)
    assert (counts["hub"].train, counts["hub"].test) == (56, 28)


def test_version_and_short_help():
    code, text = invoke("--version")
    assert (code, text.strip()) == (0, f"clsinterp {clsinterp.__version__}")
    for words in (("-h",), ("run", "-h")):
        code, text = invoke(*words)
        assert (code, "Usage" in text) == (0, True)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("0,3", (0, 3)), ("0-3,11", (0, 1, 2, 3, 11)), ("-1", (-1,)), ("-1-1", (-1, 0, 1)), ("all", None)],
)
def test_layers_can_be_spans(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["3-1", "a", "1-", "", "0,,1", "0--1"])
def test_what_is_no_layer_is_refused(text):
    with pytest.raises(RequestError, match="0-3,11"):
        parse_layers(text)


def test_a_table_says_in_words_whose_head_reads(checkpoint, folder, tmp_path):
    for more, said in (((), "the model's own, classes matched by name"), (("--head", "fit"), "head: fitted here")):
        out = tmp_path / str(len(more))
        code, text = invoke_flat(
            "run", checkpoint("vit"), "--data", folder, "--out", out, "--limit", 8, "--batch-size", 8, *more
        )
        assert (code, said in text) == (0, True), text
