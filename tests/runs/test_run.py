"""The whole run, through the command line as a user has it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
import torch
import transformers as hf
from command_line import BATCH, run
from PIL import Image
from safetensors.torch import load_file, save_file

from clsinterp import interventions as iv
from clsinterp.probing.metrics import ranks
from clsinterp.runs.job import Counts
from clsinterp.runs.results import CURVES, read_run

plain = pytest.mark.usefixtures("plain_page")


@pytest.fixture(scope="module")
def done(checkpoint, folder, tmp_path_factory):
    """family -> the run folder of a finished run with layers -1 and all."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = root / family
            splits = ("--test-split", "test", "--train-split", "train")
            code, text = run(checkpoint(family), folder, made[family], "--layers=-1,0,1,2,3", *splits)
            assert code == 0, text
        return made[family]

    return get


def rank(table, column):
    return torch.from_numpy(table[column].to_numpy().copy()).long()


@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_the_run_folder_is_whole(done, family):
    out = done(family)
    assert sorted(p.name for p in out.iterdir()) == [
        "curves.parquet", "figure.html", "images.parquet", "probes.safetensors", "run.json",
    ]  # fmt: skip
    report, curves = read_run(out)
    assert curves.schema == CURVES
    rows = curves.to_pylist()
    least = {"cost": -1, "cost_cls_only": -1}
    assert all(
        least.get(r["curve"], 0) <= r["ci_low"] <= r["value"] <= r["ci_high"] <= 1.0001 and r["n"] == 42 for r in rows
    )
    assert {r["mode"] for r in rows if r["curve"] == "intact"} == {None}
    assert {r["mode"] for r in rows if r["curve"] == "shuffle"} == {"permute"}
    pairs = {(r["layer"], r["probed_layer"]) for r in rows if r["curve"] == "restoration"}
    assert pairs == {(s, p) for s in range(-1, 4) for p in range(s, 4)}
    assert report.facts.family == family
    assert report.manifest.counts == Counts(84, 42, {"train": [], "test": []})
    assert report.manifest.labels.how == ("fit" if family in ("vit-mae", "dinov3") else "name")
    assert report.identity.request.seed == 0
    assert {"torch", "nnsight", "transformers"} <= set(report.manifest.versions)


@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_the_control_layer_gives_exactly_the_intact_ranks(done, family):
    images = pq.read_table(done(family) / "images.parquet")
    assert rank(images, "rank_shuffle_-1").equal(rank(images, "rank_intact"))


@pytest.mark.parametrize("family", tiny.FIVE)
def test_every_rank_column_can_be_recomputed_with_plain_torch(done, family, checkpoint, folder):
    """From the checkpoint and the named images alone, without this package's model, fork, lens or loader."""
    images = pq.read_table(done(family) / "images.parquet")
    module = getattr(hf, type(tiny.build(family)).__name__).from_pretrained(checkpoint(family)).eval()
    processor = hf.AutoImageProcessor.from_pretrained(checkpoint(family), backend="pil")
    saved = load_file(done(family) / "probes.safetensors")
    labels, donors = rank(images, "label"), rank(images, "donor")
    pictures = [Image.open(folder / source).convert("RGB") for source in images["source"].to_pylist()]
    assert [int(Path(s).parent.name[-1]) for s in images["source"].to_pylist()] == labels.tolist()
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    path = {"clip": "vision_model.encoder.layers", "dinov2": "dinov2.encoder.layer"}.get(family, f"{family}.layers")
    blocks = module.get_submodule(path)
    norms = {"vit": "vit.layernorm", "deit": "deit.layernorm", "beit": "beit.layernorm", "dinov2": "dinov2.layernorm"}
    seen = set()

    def same(column, logits):
        seen.add(column)
        assert torch.equal(ranks(logits, labels), rank(images, column)), column
        if (answer := column.replace("rank", "answer", 1)) in images.column_names:
            assert torch.equal(logits.argmax(-1), rank(images, answer)), answer

    def cls_only(final):
        if family == "deit":
            return module.cls_classifier(module.deit.layernorm(final)[:, 0])
        cls = module.dinov2.layernorm(final)[:, 0]
        mean = saved["readout.mean"].float()[cls.shape[-1] :]
        return module.classifier(torch.cat([cls, mean.expand_as(cls)], -1))

    @torch.no_grad()
    def forward(layer):
        states, handles = {}, []
        swapped = lambda h: torch.cat([h[donors, :1], h[:, 1:]], 1)  # noqa: E731
        if layer == -1:
            handles.append(blocks[0].register_forward_pre_hook(lambda m, a: (swapped(a[0]), *a[1:])))
        handles.append(blocks[0].register_forward_pre_hook(lambda m, a: states.update({-1: a[0]})))
        for i, block in enumerate(blocks):
            if i == layer:
                handles.append(block.register_forward_hook(lambda m, a, out: swapped(out)))
            handles.append(block.register_forward_hook(lambda m, a, out, i=i: states.update({i: out})))
        logits = module(pixels).logits
        for handle in handles:
            handle.remove()
        return states, logits

    with torch.no_grad():
        for layer in (None, -1, 0, 1, 2, 3):
            states, logits = forward(layer)
            name = "intact" if layer is None else f"shuffle_{layer:02d}"
            same(f"rank_{name}", logits)
            if layer is not None:
                seen.add(f"rank_donor_{layer:02d}")
                assert torch.equal(ranks(logits, labels[donors]), rank(images, f"rank_donor_{layer:02d}"))
            if family in ("deit", "dinov2"):
                part = "intact_cls_only" if layer is None else f"shuffle_cls_only_{layer:02d}"
                same(f"rank_{part}", cls_only(states[3]))
            for i, probed in enumerate((-1, 0, 1, 2, 3)):
                scores = states[probed][:, 0].double() @ saved["probe.weight"][i].T + saved["probe.bias"][i]
                if layer is None:
                    same(f"rank_probe_{probed:02d}", scores)
                elif layer <= probed:
                    same(f"rank_restoration_{layer:02d}_{probed:02d}", scores)
                if layer is None:
                    normed = module.get_submodule(norms[family])(states[probed]) if family in norms else states[probed]
                    cls = normed[:, 0]
                    if family == "deit":
                        same(f"rank_lens_distill_{probed:02d}", module.distillation_classifier(normed[:, 1]))
                    if family == "dinov2":
                        cls = torch.cat([cls, torch.zeros_like(cls)], -1)
                    head = module.cls_classifier if family == "deit" else module.classifier
                    same(f"rank_lens_{probed:02d}", head(cls))
    assert seen == {c for c in images.column_names if c.startswith("rank_")}


def test_donors_stay_within_their_batch_and_follow_the_seed(done):
    images = pq.read_table(done("vit") / "images.parquet")
    index, donor = rank(images, "index"), rank(images, "donor")
    assert index.tolist() == list(range(42))
    assert torch.equal(donor // BATCH, index // BATCH)
    assert torch.equal(donor[:BATCH], iv.permute(BATCH, (0, 0)))
    assert torch.equal(donor[2 * BATCH :] - 2 * BATCH, iv.permute(42 - 2 * BATCH, (0, 2)))
    report, _ = read_run(done("vit"))
    labels = rank(images, "label")
    assert report.collision_rate == pytest.approx(float((labels[donor] == labels).double().mean()))


def test_probes_are_scikit_learns_on_the_named_images(done, checkpoint, folder, model):
    from sklearn.linear_model import Ridge

    from clsinterp.data.sources import open_data

    m = model("vit")
    train, _ = open_data(str(folder))
    pixels = m.pixels([train.image(i) for i in range(len(train))])
    with torch.no_grad(), m.trace(pixels):
        cls = m.blocks[2].cls.clone().save()
    saved = load_file(done("vit") / "probes.safetensors")
    targets = 2.0 * torch.eye(7)[train.labels] - 1
    expected = Ridge(alpha=float(saved["probe.alpha"][3]), solver="svd").fit(cls.double(), targets)
    torch.testing.assert_close(saved["probe.weight"][3], torch.tensor(expected.coef_), atol=1e-6, rtol=0)


@plain
def test_memory_budget_and_workers_change_nothing(done, checkpoint, folder, tmp_path):
    code, text = run(checkpoint("dinov2"), folder, tmp_path / "r", "--layers=-1,0,1,2,3", "--memory-gb", "0.001", "--workers", 2,
                     "--test-split", "test", "--train-split", "train")  # fmt: skip
    assert code == 0, text
    for name in ("images.parquet", "curves.parquet", "probes.safetensors"):
        assert (tmp_path / "r" / name).read_bytes() == (done("dinov2") / name).read_bytes()


@plain
@pytest.mark.parametrize("more", [("--mode", "derange"), ("--mode", "cross_label"), ("--no-final-norm",), ("--head", "fit"),
                                  ("--head", "fit", "--cls-only", "refit"), ("--layers", "1,3"), ("--seed", "7")])  # fmt: skip
def test_options_reach_the_numbers(done, checkpoint, folder, tmp_path, more):
    code, text = run(checkpoint("deit"), folder, tmp_path / "r", *more)
    assert code == 0, text
    report, _ = read_run(tmp_path / "r")
    images = pq.read_table(tmp_path / "r" / "images.parquet")
    before = pq.read_table(done("deit") / "images.parquet")
    label, donor = rank(images, "label"), rank(images, "donor")
    if more[-1] == "derange":
        assert report.own_cls_rate == 0
    if more[-1] == "cross_label":
        assert report.collision_rate == 0
        assert not (label[donor] == label).any()
    if more[0] == "--no-final-norm":
        assert rank(images, "rank_intact").equal(rank(before, "rank_intact"))
        assert not rank(images, "rank_lens_01").equal(rank(before, "rank_lens_01"))
    if more[0] == "--head":
        assert report.manifest.labels.how == "fit"
        assert rank(images, "rank_probe_03").equal(rank(before, "rank_probe_03"))
        assert not rank(images, "rank_intact").equal(rank(before, "rank_intact"))
    if more[0] == "--layers":
        assert [c for c in images.column_names if c.startswith("rank_shuffle_0")] == [
            "rank_shuffle_01",
            "rank_shuffle_03",
        ]
        assert rank(images, "rank_shuffle_01").equal(rank(before, "rank_shuffle_01"))
    if more[0] == "--seed":
        assert images["source"].to_pylist() != before["source"].to_pylist()


def test_limit_makes_a_dry_run(checkpoint, folder, tmp_path):
    code, text = run(checkpoint("clip"), folder, tmp_path / "r", "--limit", 8)
    assert code == 0, text
    assert len(pq.read_table(tmp_path / "r" / "images.parquet")) == 8
    assert "figure:" in text
    assert "layer" in text


@plain
def test_bad_images_can_be_skipped_and_are_counted(checkpoint, folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "test" / "class_1" / "test1.png").write_bytes(b"x")
    code, text = run(checkpoint("vit"), data, tmp_path / "r")
    assert code == 2
    assert "cannot read image test/class_1/test1.png" in text
    code, text = run(checkpoint("vit"), data, tmp_path / "s", "--on-bad-image", "skip")
    assert code == 0, text
    assert read_run(tmp_path / "s").report.manifest.counts.skipped == {"train": [], "test": ["test/class_1/test1.png"]}


# -- resuming ----------------------------------------------------------------------


def test_a_killed_run_resumes_and_ends_bit_identical(done, checkpoint, folder, tmp_path, python):
    """SIGKILL at many moments; then one undisturbed finish."""
    out = tmp_path / "r"
    args = ["run", checkpoint("beit"), "--data", folder, "--out", out, "--batch-size", BATCH, "--workers", 0, "--quiet",
            "--layers=-1,0,1,2,3", "--test-split", "test", "--train-split", "train", "--resume"]  # fmt: skip
    command = [python, "-m", "clsinterp.cli", *map(str, args)]
    stages = (
        ".work/request.json",
        ".work/train-*",
        "probes.safetensors",
        ".work/test-*.parquet",
        "curves.parquet",
    )
    killed = 0
    for mark in stages:
        child = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while child.poll() is None and not list(out.glob(mark)):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed += child.returncode == -signal.SIGKILL
    assert killed >= 4
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    for name in ("images.parquet", "curves.parquet", "probes.safetensors"):
        assert (out / name).read_bytes() == (done("beit") / name).read_bytes(), name
    assert not (out / ".work").exists()
    assert not list(out.glob(".*tmp"))


@plain
def test_existing_folders(done, checkpoint, folder, tmp_path):
    out = shutil.copytree(done("vit"), tmp_path / "r")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    asked = ("--layers=-1,0,1,2,3", "--test-split", "test", "--train-split", "train")
    code, text = run(checkpoint("vit"), folder, out, *asked)
    assert (code, "pass --resume, --overwrite, or another --out" in text) == (2, True)
    code, text = run(checkpoint("vit"), folder, out, *asked, "--seed", 1, "--resume")
    assert code == 2
    assert "seed: 0 then, 1 now" in text
    code, text = run(checkpoint("vit"), folder, out, *asked, "--resume")
    assert code == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    code, text = run(checkpoint("vit"), folder, out, *asked, "--seed", 1, "--overwrite")
    assert code == 0
    assert read_run(out).report.facts.seed == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    code, text = run(checkpoint("vit"), folder, mine, "--overwrite")
    assert (code, "is not a run folder" in text, (mine / "thesis.tex").exists()) == (2, True, True)


@plain
def test_a_folder_in_use_is_not_overwritten(checkpoint, folder, tmp_path):
    """The other run is a process that holds what a worker holds."""
    work = tmp_path / "r" / ".work"
    work.mkdir(parents=True)
    hold = (
        "import sys; from pathlib import Path; from clsinterp.runs.locks import Locks; locks = Locks(Path(sys.argv[1])); "
        "print(locks.share(0), flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", hold, work / "lock"], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "True\n"
        code, text = run(checkpoint("vit"), folder, tmp_path / "r", "--overwrite", "--limit", 8)
        other.kill()
    assert (code, "another run is writing" in text) == (2, True)
    assert run(checkpoint("vit"), folder, tmp_path / "r", "--overwrite", "--limit", 8)[0] == 0


@plain
def test_a_full_disk_says_so_and_can_be_resumed(checkpoint, folder, tmp_path, monkeypatch):
    real, calls = pq.write_table, []

    def full(table, path, **kwargs):
        calls.append(path)
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    code, text = run(checkpoint("vit"), folder, tmp_path / "r")
    assert (code, "the disk is full" in text, "--resume" in text) == (1, True, True)
    assert calls
    assert not list((tmp_path / "r").rglob("*.parquet"))
    monkeypatch.setattr(pq, "write_table", real)
    code, text = run(checkpoint("vit"), folder, tmp_path / "r", "--resume")
    assert code == 0, text


# -- bad requests ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "more", "text"),
    [
        ("vit", ("--layers", "0,9"), "layer 9 was given; this model has layers 0 to 3"),
        ("vit", ("--layers", "zero"), "--layers zero was given; all, or numbers"),
        ("vit", ("--batch-size", 1), "batch size of 1"),
        ("vit", ("--train-per-class", 13), "class 'class_0' has 12 train images, but 13"),
        ("vit", ("--limit", 0), "--limit 0"),
        ("vit", ("--cls-only", "refit"), "reads cls only"),
        ("clip", ("--cls-only", "refit"), "reads patch_mean only"),
        ("siglip", (), "no CLS token to swap or probe"),
        ("dinov3", ("--head", "own"), "has no classifier; use --head fit"),
        ("vit", ("--mode", "derange", "--limit", 17), "batch 1 (1 images) cannot be swapped: a batch of 1 was given"),
        ("vit", ("--mode", "cross_label", "--limit", 1), "needs at least two labels"),
        ("vit", ("--config", "depth"), "KEY=VALUE"),
        ("vit", ("--memory-gb", "0.0000001"), "one image with its 4 swapped copies needs"),
        ("vit", ("--resume", "--overwrite"), "choose one"),
        ("vit", ("--device", "abacus"), "device 'abacus' is not available"),
    ],
)
def test_a_request_that_cannot_be_done_writes_nothing(checkpoint, folder, tmp_path, family, more, text):
    code, said = run(checkpoint(family), folder, tmp_path / "r", *more)
    assert code == 2
    assert text in said
    assert not (tmp_path / "r").exists()


def test_activations_that_overflow_name_the_layer(checkpoint, folder, tmp_path):
    bad = shutil.copytree(checkpoint("vit"), tmp_path / "bad")
    weights = load_file(bad / "model.safetensors")
    weights["vit.encoder.layer.1.intermediate.dense.bias"][:] = 1e38
    weights["vit.encoder.layer.1.output.dense.weight"][:] = 100
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    code, text = run(bad, folder, tmp_path / "r")
    assert (code, "first after layer 1" in text) == (1, True)


@plain
def test_a_changed_checkpoint_is_not_resumed(checkpoint, folder, tmp_path):
    mine = shutil.copytree(checkpoint("vit"), tmp_path / "mine")
    assert run(mine, folder, tmp_path / "r", "--limit", 20)[0] == 0
    tiny.save("vit", mine, seed=1)
    code, text = run(mine, folder, tmp_path / "r", "--limit", 20, "--resume")
    assert (code, "fingerprint" in text) == (2, True)


def test_the_manifest_repeats_the_run(done, folder, checkpoint, tmp_path):
    """Everything needed to repeat a run stands in run.json: build the request from it and compare."""
    from clsinterp.runs.request import Request, Resources
    from clsinterp.runs.run import run as run_experiment

    identity = json.loads((done("clip") / "run.json").read_text())["identity"]
    again = run_experiment(Request.of_json(identity), tmp_path / "again", resources=Resources(workers=0))
    assert (again / "images.parquet").read_bytes() == (done("clip") / "images.parquet").read_bytes()
