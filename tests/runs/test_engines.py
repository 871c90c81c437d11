"""Whoever starts the workers, and whoever dies: the same bytes as one run in this process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from command_line import invoke_flat as invoke

from clsinterp.errors import RequestError
from clsinterp.runs.engines import engine_for
from clsinterp.runs.request import Resources

pytestmark = pytest.mark.usefixtures("plain_page")
TABLES = ("images.parquet", "curves.parquet", "probes.safetensors")
OPTIONS = ("--batch-size", 2, "--workers", 0, "--quiet")  # 42 train and 21 test batches, a unit each


@pytest.fixture(scope="module")
def arguments(checkpoint, folder):
    """The command line of this module's one request into a folder."""
    return lambda out, *more: [
        str(a) for a in ("run", checkpoint("vit"), "--data", folder, "--out", out, *OPTIONS, *more)
    ]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The bytes of one undisturbed run's tables."""
    out = tmp_path_factory.mktemp("whole") / "r"
    code, text = invoke(*arguments(out))
    assert code == 0, text
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def wait_for(found, seconds=300):
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "never happened"
        time.sleep(0.005)
    return value


def pids(out: Path) -> list[int]:
    """Of the workers at it."""
    return [json.loads(p.read_text())["pid"] for p in (out / ".work" / "workers").glob("*.json")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Killer(threading.Thread):
    """Kills the first worker that has finished a unit of `stage`."""

    def __init__(self, out: Path, stage: str) -> None:
        super().__init__(daemon=True)
        self.out, self.stage, self.killed = out, stage, 0
        self.start()

    def run(self) -> None:
        wait_for(lambda: list((self.out / ".work").glob(f"{self.stage}-*")))
        self.killed = pids(self.out)[0]
        os.kill(self.killed, signal.SIGKILL)


def test_processes_survive_a_killed_worker(arguments, whole, tmp_path, caplog, quick_processes):
    out = tmp_path / "r"
    killer = Killer(out, "train")
    code, text = invoke(*arguments(out, "--engine", "processes", "-j", 2))
    assert code == 0, text
    assert killer.killed
    assert "a worker process died with signal 9; started again." in caplog.text
    assert contents(out) == whole


def test_workers_end_with_their_parent_and_the_run_resumes(arguments, whole, tmp_path, python):
    out = tmp_path / "r"
    command = [python, "-m", "clsinterp.cli", *arguments(out, "--engine", "processes", "-j", 2)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
        wait_for(lambda: list((out / ".work").glob("train-*")))
        parent.kill()
    workers = pids(out)
    assert workers
    wait_for(lambda: not any(alive(pid) for pid in workers), seconds=10)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    time.sleep(0.5)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    assert not (out / "run.json").exists()
    code, text = invoke(*arguments(out, "--resume"))
    assert code == 0, text
    assert contents(out) == whole


def test_two_machines_race_on_one_folder(arguments, whole, tmp_path, python):
    """Two processes that know nothing of each other; both succeed. Neither has imported Ray."""
    out = tmp_path / "r"
    code = "import sys; from clsinterp.cli import app; app(sys.argv[1:], standalone_mode=False); assert 'ray' not in sys.modules"
    command = [python, "-c", code, *arguments(out, "--resume")]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert contents(out) == whole
    assert not (out / ".work").exists()


@pytest.mark.parametrize("actors", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_ray_survives_a_killed_actor(arguments, whole, tmp_path, actors, request):
    """A local cluster of 2 cores, too small for three workers; fewer do it, and one is killed. By day Ray forks its processes."""
    import ray

    if actors == 1:
        request.getfixturevalue("quick_processes")
    out = tmp_path / "r"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        code, text = invoke(*arguments(out, "--engine", "ray", "-j", 3))
        assert (code, "the Ray cluster has 2 cores" in text, out.exists()) == (2, True, False)
        killer = Killer(out, "train")
        code, text = invoke(*arguments(out, "--engine", "ray", "-j", actors))
    finally:
        ray.shutdown()
    assert code == 0, text
    assert killer.killed
    assert contents(out) == whole


def test_an_error_in_a_worker_reads_like_one_here(arguments, whole, tmp_path, quick_processes):
    """The folder was begun on a GPU, which a worker finds out, not the parent."""
    out = tmp_path / "r"
    assert invoke(*arguments(out, "--shard", "1/40", "--stage", "train"))[0] == 0
    plan = out / ".work" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"device": "cuda"}))
    code, text = invoke(*arguments(out, "--resume", "--engine", "processes", "-j", 1))
    assert (code, "was begun on cuda" in text, "Traceback" in text) == (2, True, False)


def test_a_worker_that_always_dies_is_given_up(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    code, text = invoke(*arguments(tmp_path / "r", "--engine", "processes", "-j", 1))
    assert (code, "a worker process died 4 times, last with status 1" in text) == (1, True), text


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("-j", 2), "use --engine processes"),
        (("--engine", "processes", "-j", 0), "at least 1"),
        (("--engine", "processes", "--address", "auto"), "goes with --engine ray"),
    ],
)
def test_options_that_do_not_go_together(arguments, tmp_path, more, text):
    code, said = invoke(*arguments(tmp_path / "r", *more))
    assert (code, text in said, (tmp_path / "r").exists()) == (2, True, False), said


def test_ray_that_is_not_installed_says_how_to_get_it(arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, text = invoke(*arguments(tmp_path / "r", "--engine", "ray"))
    assert (code, "pip install 'clsinterp[ray]'" in text) == (2, True)


def test_every_visible_gpu_gets_a_worker(monkeypatch):
    """As far as can be seen without one: by a faked count."""
    assert engine_for("local", Resources(), None, None).start is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    engine = engine_for("local", Resources(), None, None)
    assert engine.start is not None
    assert [r.device for r in engine.each] == ["cuda:0", "cuda:1", "cuda:2"]
    assert {r.sharers for r in engine.each} == {1}
    assert engine_for("local", Resources("cuda:1"), None, None).start is None
    assert engine_for("local", Resources(device_map="auto"), None, None).start is None
    six = engine_for("processes", Resources(), 6, None).each
    assert [(r.device, r.sharers) for r in six] == [(f"cuda:{i % 3}", 2) for i in range(6)]


def test_a_model_over_several_devices(checkpoint, folder, whole, tmp_path, arguments, monkeypatch):
    """device_map goes through to accelerate; without it the error says what to install."""
    out = tmp_path / "r"
    code, text = invoke(*arguments(out, "--device-map", "auto"))
    assert code == 0, text
    assert contents(out) == whole
    monkeypatch.setattr("transformers.integrations.accelerate.is_accelerate_available", lambda *a: False)
    monkeypatch.setattr("transformers.modeling_utils.is_accelerate_available", lambda *a: False)
    code, text = invoke(*arguments(tmp_path / "s", "--device-map", "auto"))
    assert (code, "accelerate" in text, (tmp_path / "s").exists()) == (2, True, False), text


def test_an_unknown_engine_is_named():
    with pytest.raises(RequestError, match="one of local, processes, ray"):
        engine_for("dask", Resources(), None, None)
