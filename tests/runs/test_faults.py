"""What goes wrong in the field: files, labels, checkpoints, numbers, signals. Each ends in a result or one clear message."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import time
from io import BytesIO

import numpy as np
import pytest
import tiny
import torch
from command_line import BATCH, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from clsinterp.data.images import decode
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.runs.results import read_run
from clsinterp.signals import Ended, ending_as_interrupts, exit_status

pytestmark = pytest.mark.usefixtures("plain_page")
TABLES = ("images.parquet", "curves.parquet", "probes.safetensors")


def encoded(kind: str, size=(9, 7)) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.arange(3 * size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0], 3)).save(buffer, kind)
    return buffer.getvalue()


# -- images ------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_decode_or_are_refused_by_name(kind, cut, flips):
    data = bytearray(encoded(kind))
    for place, value in flips:
        data[int(place * len(data))] = value
    try:
        image = decode(bytes(data[: int(cut * len(data))]), "cats/7")
    except RequestError as error:
        assert "cats/7" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert image.mode == "RGB"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_image_are_refused_by_name(data):
    with pytest.raises(RequestError, match="cats/7"):
        decode(data, "cats/7")


def test_a_corpus_of_odd_images_runs(checkpoint, folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    where = data / "test" / "class_0"
    big = Image.fromarray(np.zeros((40, 50, 3), np.uint8))
    big.convert("CMYK").save(where / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(where / "dot.png")
    Image.new("L", (20000, 10)).save(where / "strip.png")
    big.convert("RGBA").save(where / "alpha.png")
    big.save(where / "frames.gif", save_all=True, append_images=[big])
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).save(where / "deep.png")
    big.save(where / "wrong_suffix.png", "JPEG")
    code, text = run(checkpoint("vit"), data, tmp_path / "r", "--layers", "0")
    assert code == 0, text
    assert read_run(tmp_path / "r").report.manifest.counts.test == 42 + 7


# -- labels ------------------------------------------------------------------


def table(path, labels, names=None, images=None):
    import datasets

    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    cells = images or [{"bytes": encoded("PNG"), "path": None}] * len(labels)
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    columns = {"image": cells, "label": labels}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


def test_unicode_and_repeated_looking_class_names(tmp_path):
    names = ["Käfer", "kafer", "日本", "a b", "a_b"]
    for split in ("train", "test"):
        table(tmp_path / f"{split}.parquet", [0, 1, 2, 3, 4], names)
    train, test = open_data(str(tmp_path))
    assert train.class_names == test.class_names == names
    assert sorted(train.labels) == [0, 1, 2, 3, 4]


def test_a_class_that_only_the_test_split_has_is_kept_apart(checkpoint, tmp_path):
    table(tmp_path / "train.parquet", [0, 1] * 8)
    table(tmp_path / "test.parquet", [0, 1, 2] * 4)
    code, text = run(checkpoint("vit"), tmp_path, tmp_path / "r", "--layers", "0", "--head", "fit")
    assert code == 0, text
    assert read_run(tmp_path / "r").report.facts.n_labels == 3


def test_one_class_alone_runs_where_it_can_and_says_where_not(checkpoint, tmp_path):
    for split in ("train", "test"):
        table(tmp_path / f"{split}.parquet", [0] * 8, ["only"])
    code, text = run(checkpoint("vit"), tmp_path, tmp_path / "r", "--layers", "0", "--mode", "cross_label")
    assert code == 2
    assert "batch 0" in text
    code, text = run(checkpoint("vit"), tmp_path, tmp_path / "s", "--layers", "0", "--head", "fit")
    assert code == 0, text


def test_labels_out_of_range_and_empty_cells_are_refused_by_row(checkpoint, tmp_path):
    table(tmp_path / "train.parquet", [0, 1] * 4)
    table(tmp_path / "test.parquet", [0, -1, 1, 0])
    code, text = run(checkpoint("vit"), tmp_path, tmp_path / "r")
    assert (code, "row 1 of split 'test' has label -1" in text) == (2, True)
    table(tmp_path / "test.parquet", [0, 1], images=[{"bytes": encoded("PNG"), "path": None}, None])
    code, text = run(checkpoint("vit"), tmp_path, tmp_path / "r")
    assert (code, "has no image" in text) == (2, True)
    assert not (tmp_path / "r" / "images.parquet").exists()


def test_one_image_per_class_is_enough_for_probes(checkpoint, folder, tmp_path):
    code, text = run(checkpoint("vit"), folder, tmp_path / "r", "--train-per-class", 1, "--layers", "0,3")
    assert code == 0, text
    assert read_run(tmp_path / "r").report.manifest.counts.train == tiny.CLASSES


# -- checkpoints ---------------------------------------------------------------


def test_a_missing_shard_is_refused(checkpoint, folder, tmp_path):
    broken = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    weights = load_file(broken / "model.safetensors")
    names = sorted(weights)
    half = names[: len(names) // 2]
    save_file({n: weights[n] for n in half}, broken / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    (broken / "model.safetensors").unlink()
    index = {n: f"model-0000{1 if n in half else 2}-of-00002.safetensors" for n in names}
    (broken / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    code, text = run(broken, folder, tmp_path / "r")
    assert code == 2
    assert "model-00002-of-00002.safetensors" in text
    assert not (tmp_path / "r").exists()


def test_a_head_of_another_size_is_refused(checkpoint, folder, tmp_path):
    broken = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    weights = load_file(broken / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(3, tiny.WIDTH)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    code, text = run(broken, folder, tmp_path / "r")
    assert (code, "classifier.weight" in text) == (2, True), text


def test_an_architecture_of_another_kind_is_refused(checkpoint, folder, tmp_path):
    wrong = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    code, text = run(wrong, folder, tmp_path / "r")
    assert (code, "BertForMaskedLM is not in the family table" in text) == (2, True)


# -- numbers -------------------------------------------------------------------


def test_constant_features_give_the_class_frequencies():
    stats = RidgeStats.zeros(1, 4, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 2] * 5)
    stats.update(torch.ones(1, 30, 4), labels, torch.arange(30))
    scores = solve(stats).scores(torch.ones(2, 4), 0)
    expected = 2 * torch.tensor([1 / 2, 1 / 3, 1 / 6]).double() - 1
    torch.testing.assert_close(scores, expected.expand(2, 3))


def test_huge_but_finite_activations_have_a_result(checkpoint, folder, tmp_path):
    loud = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    weights = load_file(loud / "model.safetensors")
    weights["vit.embeddings.cls_token"] *= 1e12
    save_file(weights, loud / "model.safetensors", metadata={"format": "pt"})
    code, text = run(loud, folder, tmp_path / "r", "--layers", "0,3")
    assert code == 0, text
    _, curves = read_run(tmp_path / "r")
    assert np.isfinite(curves["value"].to_numpy()).all()


def test_float16_overflow_names_the_layer_and_the_way_out(checkpoint, folder, tmp_path):
    loud = shutil.copytree(checkpoint("vit"), tmp_path / "vit")
    weights = load_file(loud / "model.safetensors")
    weights["vit.encoder.layer.1.output.dense.weight"] *= 3e4  # finite in float16, unlike what comes out
    save_file(weights, loud / "model.safetensors", metadata={"format": "pt"})
    code, text = run(loud, folder, tmp_path / "r", "--dtype", "float16")
    assert code == 1, text
    assert "first after layer 1" in text
    assert "--dtype float32" in text


# -- folders and signals -------------------------------------------------------------


def command(python, checkpoint, folder, out, *more) -> list[str]:
    asked = ["run", checkpoint, "--data", folder, "--out", out, "--batch-size", BATCH, "--workers", 0, "--quiet", *more]
    return [python, "-m", "clsinterp.cli", *map(str, asked)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def test_a_folder_that_vanishes_in_mid_run_is_an_error_not_a_traceback(python, checkpoint, folder, tmp_path):
    out = tmp_path / "r"
    child = subprocess.Popen(
        command(python, checkpoint("vit"), folder, out), stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    while child.poll() is None and not out.exists():
        time.sleep(0.002)
    while child.poll() is None and out.exists():
        shutil.rmtree(out, ignore_errors=True)
    _, error = child.communicate()
    assert child.returncode in (0, 1), error
    assert "Traceback" not in error
    assert child.returncode == 0 or "cannot write" in error or "vanished" in error


def test_a_place_that_cannot_be_written(checkpoint, folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    code, text = run(checkpoint("vit"), folder, blocked / "r")
    assert code == 1, text
    assert str(blocked) in text.replace(" ", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupting_says_how_to_go_on(python, checkpoint, folder, tmp_path, name):
    """In a terminal of its own, so that there is a cursor to be hidden and shown."""
    number = getattr(signal, name)
    out = tmp_path / "r"
    slowly = command(
        python, checkpoint("vit"), folder, out, "--batch-size", 2
    )  # long enough to be caught on a busy machine
    slowly.remove("--quiet")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        slowly,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT | {"TERM": "xterm"},
        # a suite that a shell started in the background ignores Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    os.close(theirs)
    while child.poll() is None and not (out / ".work").exists():
        time.sleep(0.002)
    child.send_signal(number)
    error = "".join(iter(lambda: _chunk(ours), ""))
    os.close(ours)
    assert child.wait() == 128 + number, error
    assert error.rfind("\x1b[?25h") > error.rfind("\x1b[?25l"), "the cursor stayed hidden"
    assert "--resume" in error
    assert "Traceback" not in error
    if name != "SIGTERM":  # once is enough: twenty kills follow at night
        return
    resumed = subprocess.run([*slowly, "--resume", "--quiet"], capture_output=True, env=ENVIRONMENT)
    assert resumed.returncode == 0, resumed.stderr


def _chunk(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


def test_an_ignored_hangup_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    of_others = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a test before may have left Ray's
    try:
        with ending_as_interrupts():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Ended) as ended:
                signal.raise_signal(signal.SIGTERM)
        assert exit_status(ended.value) == 143
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, of_others)
    assert exit_status(KeyboardInterrupt()) == 130


@pytest.mark.nightly
def test_twenty_kills_at_random_moments_change_no_byte(python, checkpoint, folder, tmp_path):
    """Each kill is followed by a resume, which is killed in turn; the last one is left alone."""
    calm, out = tmp_path / "calm", tmp_path / "r"
    start = time.monotonic()
    subprocess.run(command(python, checkpoint("deit"), folder, calm), check=True, env=ENVIRONMENT)
    whole = time.monotonic() - start
    draw, killed = random.Random(0), 0
    for _ in range(20):
        child = subprocess.Popen(
            command(python, checkpoint("deit"), folder, out, "--resume"), stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        time.sleep(draw.uniform(0, 1.1) * whole)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
        if (out / "run.json").exists() and not (out / ".work").exists():
            shutil.rmtree(out)  # it got through: begin again
    assert killed >= 10
    subprocess.run(command(python, checkpoint("deit"), folder, out, "--resume"), check=True, env=ENVIRONMENT)
    for name in TABLES:
        assert (out / name).read_bytes() == (calm / name).read_bytes(), name
