"""How many images a study takes and how large: the options of `clsinterp run`, with its meaning."""

import json

import pyarrow.parquet as pq
import pytest
import tiny
from study_scripts import run, script

from clsinterp import VisionModel
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.run import run as run_note
from clsinterp.studies.setup import Setup

SIZE, TRAIN, TEST = 48, 3, 2  # pixels (the tiny checkpoint's own are fewer), images of each class


@pytest.fixture(scope="module")
def noted(checkpoint, folder, tmp_path_factory):
    """A note run at a size of its own, on some images of each class."""
    words = ("--image-size", SIZE, "--train-per-class", TRAIN, "--test-per-class", TEST)
    return run("note", tmp_path_factory.mktemp("size") / "note", checkpoint("dinov2"), "--data", folder, *words)


def test_size_and_counts_mean_what_they_mean_in_a_run(noted, checkpoint, folder, tmp_path):
    request = Request(model=str(checkpoint("dinov2")), data=str(folder), batch_size=16, image_size=SIZE,
                      train_per_class=TRAIN, test_per_class=TEST)  # fmt: skip
    reference = run_note(request, tmp_path / "run", resources=Resources(workers=0))
    keys = ("curve", "layer", "probed_layer", "metric", "value", "n")
    ours, theirs = (
        sorted(str([row[key] for key in keys]) for row in pq.read_table(out / "curves.parquet").to_pylist())
        for out in (noted, reference)
    )
    assert ours == theirs


def test_a_run_folder_says_which_size_and_how_many(noted):
    manifest = json.loads((noted / "run.json").read_text())
    shown = {name: manifest["identity"][name] for name in ("image_size", "train_per_class", "test_per_class")}
    assert shown == {"image_size": SIZE, "train_per_class": TRAIN, "test_per_class": TEST}
    (model,) = manifest["models"]
    assert (model["train"]["n"], model["test"]["n"]) == (TRAIN * tiny.CLASSES, TEST * tiny.CLASSES)


def test_the_random_twin_sees_images_of_the_same_size(checkpoint, folder):
    setup = Setup.open(str(checkpoint("dinov2")), str(folder), image_size=SIZE, limit=4, workers=0)
    for seen in (setup, setup.twin()):
        (batch,) = seen.batches(setup.test)
        assert batch.pixels.shape[-2:] == (SIZE, SIZE)


def test_canvases_come_in_the_size_that_is_asked_for(checkpoint, folder, tmp_path):
    words = ("--data", folder, "--limit", 4, "--all-pairs", "--image-size", SIZE)
    out = run("causality", tmp_path / "count", checkpoint("dinov2"), *words)
    assert json.loads((out / "run.json").read_text())["identity"]["image_size"] == SIZE


@pytest.mark.parametrize(
    ("name", "family", "words", "said"),
    [
        ("note", "vit", ("--image-size", "48"), "image size 48 was given"),
        ("note", "dinov2", ("--image-size", "45"), "a multiple of the patch size"),
        ("note", "dinov2", ("--image-size", "0"), "--image-size 0 was given"),
        ("note", "dinov2", ("--test-per-class", "0"), "--test-per-class 0 was given"),
        ("causality", "dinov2", ("--train-per-class", "3"), "--train-per-class 3 was given; this study makes its own"),
        ("causality", "dinov2", ("--test-per-class", "3"), "--limit says how many pairs"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, family, words, said, checkpoint, folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        script(name).main([str(checkpoint(family)), "--data", str(folder), "--out", str(tmp_path / "x"), *words])
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def head(checkpoint, folder, tmp_path_factory):
    """A head fitted on the train images, saved."""
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    VisionModel(str(checkpoint("dinov2")), image_size=SIZE).fit_head(str(folder)).save(path)
    return path


def test_a_saved_head_answers_as_the_one_that_a_study_would_fit(head, checkpoint, folder, tmp_path):
    where = (checkpoint("dinov2"), "--data", folder, "--image-size", SIZE)
    tables = [
        pq.read_table(run("ablations", tmp_path / name, *where, *words) / "ablations.parquet")
        for name, words in (("saved", ("--classifier", head)), ("fitted", ("--head", "fit")))
    ]
    assert tables[0].equals(tables[1])


def test_a_saved_head_is_a_ridge_fit_and_its_random_twin_has_a_random_one(head, checkpoint, folder, tmp_path):
    where = (checkpoint("dinov2"), "--data", folder, "--classifier", head, "--limit", 16)
    out = run("readouts", tmp_path / "readouts", *where, "--epochs", 1, "--samples", 2)
    assert not [row for row in pq.read_table(out / "readouts.parquet").to_pylist() if row["curve"] == "calibrated"]
    setup = Setup.open(str(checkpoint("dinov2")), str(folder), classifier=head, limit=4, workers=0)
    twin = setup.twin()
    (batch,) = twin.batches(twin.test)
    assert batch.pixels.shape[-1] == SIZE  # the size that the head was fitted at
    assert twin.outputs(batch, []).shape == setup.outputs(batch, []).shape
    assert not (twin.outputs(batch, []) - setup.outputs(batch, [])).abs().max() < 1e-3
