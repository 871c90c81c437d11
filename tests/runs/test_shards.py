"""Any split, any order: the same bytes as one run."""

import json
import os
import random
import shlex
import subprocess
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from command_line import invoke_flat as invoke
from hypothesis import given, settings
from hypothesis import strategies as st

from clsinterp.runs.units import STAGES, Layout, Shard, ancestors, halves, tree_sum

pytestmark = pytest.mark.usefixtures("plain_page")
TABLES = ("images.parquet", "curves.parquet", "probes.safetensors")
OPTIONS = (
    "--batch-size",
    4,
    "--layers=-1,1,3",
    "--head",
    "fit",
    "--cls-only",
    "refit",
    "--also",
    "erasure,rereading",
)  # 21 train and 11 test batches


@pytest.fixture(scope="module")
def command(checkpoint, folder):
    """Run the one request of this module into a folder."""

    def run(out, *more) -> tuple[int, str]:
        return invoke(
            "run", checkpoint("deit"), "--data", folder, "--out", out, "--workers", 0, *OPTIONS, "--quiet", *more
        )

    return run


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The bytes of one undisturbed run's tables."""
    out = tmp_path_factory.mktemp("whole") / "r"
    code, text = command(out)
    assert code == 0, text
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


@pytest.mark.parametrize("n", [4])
def test_shards_in_any_order_give_the_same_bytes(command, whole, tmp_path, n):
    """Every shard twice, in two random orders; the last assembles."""
    out, order = tmp_path / "r", list(range(1, n + 1))
    codes = []
    for stage in (("--stage", "train"), ()):
        random.Random(n).shuffle(order)
        codes += [command(out, "--shard", f"{i}/{n}", *stage)[0] for i in order]
    assert set(codes) == {0}
    assert contents(out) == whole
    assert not (out / ".work").exists()
    assert {p.name for p in out.iterdir()} == {*TABLES, "figure.html", "run.json"}


def test_more_shards_than_units(command, tmp_path):
    """3 units each: some of the 5 shards have nothing to do, and say so with status 0."""
    assert command(tmp_path / "whole", "--limit", 12)[0] == 0
    for stage in (("--stage", "train"), ()):
        assert {command(tmp_path / "r", "--limit", 12, "--shard", f"{i}/5", *stage)[0] for i in (5, 2, 1, 4, 3)} == {0}
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")


def test_units_of_several_batches_split_as_well(command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "clsinterp.runs.units.LEAST_TRAIN_UNITS", 5
    )  # as in a run of many batches: units of 4, and of 3
    monkeypatch.setattr("clsinterp.runs.units.MOST_TEST_UNITS", 4)
    assert command(tmp_path / "whole", "--workers", 2)[0] == 0
    for stage in (("--stage", "train"), ()):
        assert {command(tmp_path / "r", "--shard", f"{i}/4", *stage)[0] for i in (3, 1, 4, 2)} == {0}
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")


def test_other_splits_and_whole_runs_mix_in_one_folder(command, whole, tmp_path):
    out = tmp_path / "r"
    assert command(out, "--shard", "2/3", "--stage", "train")[0] == 0
    assert command(out, "--shard", "5/7", "--stage", "train")[0] == 0
    assert command(out, "--resume")[0] == 0
    assert contents(out) == whole
    code, text = command(out, "--shard", "2/3")  # too late is harmless
    assert (code, contents(out)) == (0, whole), text


def test_a_shard_that_comes_too_early_says_what_it_waits_for(command, whole, tmp_path):
    out = tmp_path / "r"
    code, text = command(out, "--shard", "2/4")
    assert code == 3
    assert "shard 2/4 has done its train part" in text
    assert "needs the train parts of shards 1, 3-4 of 4" in text
    assert "--wait MINUTES" in text
    assert command(out, "--shard", "2/4", "--wait", 0.002)[0] == 3
    for i in (1, 3):
        assert command(out, "--shard", f"{i}/4")[0] == 3
    code, text = invoke("merge", out)
    assert (code, "of the train pass batches 15-20 of 21 are missing" in text) == (3, True), text
    assert command(out, "--shard", "4/4")[0] == 0  # the last train part: solves, and does its own test part
    code, text = invoke("merge", out)
    assert (code, "of the test pass batches 0-7 of 11 are missing" in text) == (3, True), text
    assert {command(out, "--shard", f"{i}/4")[0] for i in (1, 2, 3)} == {0}
    assert contents(out) == whole


def test_merge_assembles_what_no_shard_did(command, whole, tmp_path, monkeypatch):
    """All shards end just before the tables: merge makes them, without the model; a second merge changes nothing."""
    out = tmp_path / "r"
    monkeypatch.setattr("clsinterp.runs.worker.assemble", lambda folder, job: None)
    for stage in (("--stage", "train"), ()):
        for i in (2, 1):
            assert command(out, "--shard", f"{i}/2", *stage)[0] == 0
    assert not (out / "run.json").exists()
    monkeypatch.setattr("clsinterp.runs.workload.Workload.of", None)
    for _ in range(2):
        code, text = invoke("merge", out)
        assert code == 0, text
        assert "figure:" in text
        assert contents(out) == whole


def test_merge_solves_when_only_that_is_left(command, whole, tmp_path):
    out = tmp_path / "r"
    assert command(out, "--stage", "train")[0] == 0
    code, text = invoke("merge", out)
    assert (code, "of the test pass" in text) == (3, True)
    assert (out / "probes.safetensors").read_bytes() == whole["probes.safetensors"]
    code, text = invoke("merge", tmp_path)
    assert (code, "is not a run folder" in text) == (2, True)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "3", "a/b", "1/0", "-1/4"])
def test_shards_count_from_one(command, tmp_path, shard):
    code, text = command(tmp_path / "r", f"--shard={shard}")
    assert (code, "counted from 1" in text, (tmp_path / "r").exists()) == (2, True, False)


def test_a_shard_of_another_request_is_refused(command, tmp_path):
    out = tmp_path / "r"
    assert command(out, "--shard", "1/2", "--stage", "train")[0] == 0
    code, text = command(out, "--shard", "2/2", "--seed", 1)
    assert (code, "seed: 0 then, 1 now" in text) == (2, True)


def test_what_the_first_worker_settled_holds_for_all(command, whole, tmp_path):
    """Images at once and the kind of device are read from the folder, not found out again by each."""
    out = tmp_path / "r"
    assert command(out, "--shard", "1/2", "--stage", "train", "--memory-gb", 0.0008)[0] == 0
    plan = json.loads((out / ".work/plan.json").read_text())
    assert 1 <= plan["images_at_once"] < 4
    assert command(out, "--shard", "2/2", "--stage", "train")[0] == 0
    assert json.loads((out / ".work/plan.json").read_text()) == plan
    (out / ".work/plan.json").write_text(json.dumps(plan | {"device": "cuda"}))
    code, text = command(out, "--resume")
    assert (code, "was begun on cuda" in text) == (2, True)
    (out / ".work/plan.json").write_text(json.dumps(plan))
    assert command(out, "--resume")[0] == 0
    assert contents(out) == whole


def test_threads_change_nothing(command, tmp_path):
    assert command(tmp_path / "one", "--limit", 16)[0] == 0
    torch.set_num_threads(2)
    assert command(tmp_path / "r", "--limit", 16)[0] == 0
    assert contents(tmp_path / "r") == contents(tmp_path / "one")
    computed_on = json.loads((tmp_path / "r" / "run.json").read_text())["computed_on"]
    assert [(c["threads"], c["processes"]) for c in computed_on] == [(2, 1)]


def test_unreadable_images_are_looked_for_once(command, checkpoint, folder, tmp_path, monkeypatch):
    """Shards take the list of the first; the split is the same."""
    import shutil

    data = shutil.copytree(folder, tmp_path / "data")
    (data / "train" / "class_1" / "train1.png").write_bytes(b"x")
    skip = ("--data", data, "--on-bad-image", "skip")
    assert command(tmp_path / "whole", *skip)[0] == 0
    assert command(tmp_path / "r", "--shard", "1/2", "--stage", "train", *skip)[0] == 0
    (data / "train" / "class_1" / "train1.png").write_bytes((data / "train" / "class_1" / "train2.png").read_bytes())
    assert command(tmp_path / "r", "--resume", *skip)[0] == 0
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")


def test_the_slurm_example_submits_commands_that_do_it(checkpoint, folder, whole, tmp_path):
    """A stand-in for sbatch notes what it is given; then every task of both arrays is run."""
    script = Path(__file__).parents[2] / "experiments" / "sharded_note.sh"
    sbatch, asked, out = tmp_path / "bin" / "sbatch", tmp_path / "asked", tmp_path / "r r"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done >> {asked}\necho 77\n')
    sbatch.chmod(0o755)
    settings = {"MODEL": checkpoint("deit"), "DATA": folder, "OUT": out, "N": 2, "EXTRA": " ".join(map(str, OPTIONS))}
    environment = os.environ | {k: str(v) for k, v in settings.items()}
    environment["PATH"] = f"{sbatch.parent}:{environment['PATH']}"
    subprocess.run(["bash", script], env=environment, check=True)
    lines = asked.read_text().splitlines()
    assert [lines[i + 1] for i, line in enumerate(lines) if line == "--array"] == ["1-2", "1-2"]
    assert lines[lines.index("--dependency") + 1] == "afterok:77"
    commands = [lines[i + 1] for i, line in enumerate(lines) if line == "--wrap"]
    assert len(commands) == 2
    for text in commands:
        for task in (2, 1):
            program, *arguments = shlex.split(text.replace("$SLURM_ARRAY_TASK_ID", str(task)))
            assert program == "clsinterp"
            code, said = invoke(*arguments, "--workers", 0)
            assert code == 0, said
    assert contents(out) == whole


# -- cutting and adding up, as pure functions ------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(2, 300), st.floats(0, 1e4), st.integers(1, 40))
def test_shards_partition_the_images(n_train, n_test, size, ratio, of):
    layout = Layout.of(n_train, n_test, size, ("probe 0", "probe 1"), ratio)
    for stage in STAGES:
        parts = [layout.units(stage, Shard(i, of)) for i in range(1, of + 1)]
        assert [u for part in parts for u in part] == layout.units(stage)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    units = [u for stage in ("train", "test") for u in layout.units(stage)]
    assert layout.n_images(layout.units("train")) == n_train
    assert layout.n_images(layout.units("test")) == n_test
    assert all(a.stop == b.start or b.start == 0 for a, b in pairwise(units))
    every = [u for stage in STAGES for u in layout.units(stage)]
    assert len({layout.place(u) for u in every}) == len({layout.files(u)[0] for u in every}) == len(every)
    assert Layout.of_json(json.loads(json.dumps(asdict(layout)))) == layout


@settings(max_examples=50)
@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_sum_is_the_same_whatever_was_added_up_before(n, rng):
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8) for _ in range(n)]

    def naive(part: tuple[int, int]) -> float:
        if part[1] - part[0] == 1:
            return values[part[0]]
        left, right = halves(part)
        return naive(left) + naive(right)

    known = {(i, i + 1): values[i] for i in range(n)}
    for unit in rng.sample(range(n), n):  # sums of neighbours appear in any order, and their parts go
        for both in ancestors(unit, n)[1 : rng.randint(1, 6)]:
            if all(half in known for half in halves(both)):
                left, right = halves(both)
                known[both] = known.pop(left) + known.pop(right)
    assert tree_sum((0, n), known.get, lambda a, b: a + b) == naive((0, n))
    del known[next(iter(known))]
    with pytest.raises(LookupError):
        tree_sum((0, n), known.get, lambda a, b: a + b)
