"""What goes wrong with remote runs: every fault said plainly, what would run here refused, the key never shown."""

import logging
import re

import nnsight.ndif
import pyarrow.parquet as pq
import pytest
import remote_fixtures as rf
import tiny
import torch
from command_line import invoke_flat as invoke

from clsinterp.checks.remote import check_remote, deployments
from clsinterp.errors import RequestError, RunError
from clsinterp.probing.head import Head
from clsinterp.remote import backend
from clsinterp.remote.server import Server
from clsinterp.runs.results import read_run
from clsinterp.vision_model import VisionModel

# -- faults ---------------------------------------------------------------------

TRACEBACK = (
    'Traceback (most recent call last):\n  File "x/forward.py", line 7, in forward\nValueError: no such thing KEY'
)
LASTING = {
    "model not hosted": ({"kind": "error", "text": "Could not deploy this model. It is large"}, RequestError, "does not host"),
    "too large": ({"kind": "too-large", "bytes": 1000}, RequestError, r"too large .* per_request="),
    "result lost": ({"kind": "lose"}, RunError, r"lost a result .*404.* resume=True"),
    "result cut": ({"kind": "truncate"}, RunError, r"lost a result .*bytes that are no result"),
    "connection lost": ({"kind": "drop"}, RunError, r"lost a result .*the job was RUNNING"),
    "traceback": ({"kind": "error", "text": TRACEBACK}, RunError, "forward.py line 7: ValueError: no such thing"),
    "memory": ({"kind": "error", "text": "torch.OutOfMemoryError: CUDA out of memory."}, RunError, "per_request="),
    "timeout": ({"kind": "error", "text": "Your job exceeded the execution timeout of 60s."}, RunError, "per_request="),
    "another class": (
        {"kind": "error", "text": "a\nnnsight.x.UnknownPersistentIdError: Module:model.vit"}, RequestError, "another class",
    ),
    "a module": (
        {"kind": "error", "text": "a\nModuleNotFoundError: No module named 'mine'"}, RunError, r"nnsight.register\('mine'\)",
    ),
    "not available": ({"kind": "unavailable"}, RunError, r"not available \(503.* resume=True"),
    "preempted": ({"kind": "error", "text": "Your job was cancelled or preempted by the server."}, RunError, "resume=True"),
}  # fmt: skip
PASSING = ("result lost", "result cut", "connection lost", "not available", "preempted")


def ask(model: VisionModel) -> torch.Tensor:
    with model.trace(torch.zeros(1, 3, tiny.SIZE, tiny.SIZE)):
        logits = model.logits.save()
    return logits


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_fault_is_said_plainly(double, caplog, name):
    fault, error, message = LASTING[name]
    model = double.model("vit")
    double.fail({**fault, "times": 99})
    with pytest.raises(error, match=f"(?s).*{message}") as caught:
        ask(model)
    assert model.server.traffic.retries == (2 if name in PASSING else 0)
    said = str(caught.value) + "".join(getattr(caught.value, "__notes__", ())) + caplog.text
    assert rf.KEY not in said
    if name == "traceback":
        assert "\n" not in str(caught.value)
        assert "line 7, in forward" in caught.value.__notes__[0]
    double.fail()
    assert ask(model).shape == (1, tiny.CLASSES)


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_tried_again(double, caplog, name):
    fault, _, _ = LASTING[name]
    model = double.model("vit")
    double.fail({**fault, "times": 2})
    assert ask(model).shape == (1, tiny.CLASSES)
    assert model.server.traffic.retries == 2
    assert caplog.text.count("Trying again in") == 2


def test_errors_raised_by_this_package_there_are_its_own_here(double):
    model = double.model("clip")
    with pytest.raises(RequestError, match=r"^a clip model has no distill token"), model.trace(tiny.pixels(1)):
        model.blocks[0].distill.save()


def test_a_function_that_fails_there_names_its_place(double):
    model = double.model("vit")
    with pytest.raises(RunError, match=r"test_remote_faults.py line \d+: .*"), model.trace(tiny.pixels(1)):
        model.logits = model.blocks[0].cls @ model.blocks[1].cls


def test_a_server_that_is_not_there(double, free_port):
    model = VisionModel(
        str(double.folder("vit")), remote=Server(f"http://127.0.0.1:{free_port}", tries=2, backoff=0.01)
    )
    with pytest.raises(RunError, match=r"cannot be reached .* resume=True"):
        ask(model)
    assert model.server.traffic.retries == 1


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_server_that_is_no_ndif_server(double):
    model = VisionModel(str(double.folder("vit")), remote=Server(f"{double.url}/elsewhere", tries=2, backoff=0.01))
    with pytest.raises(RequestError, match="does not answer as an NDIF server does"):
        ask(model)


def test_a_checkpoint_the_server_does_not_have(double, checkpoint):
    model = VisionModel(str(checkpoint("vit")), remote=double.url)
    with pytest.raises(RequestError, match=r"does not host .*checkpoints.*clsinterp check MODEL --remote"):
        ask(model)


def test_a_long_queue_is_reported_and_silence_ends(double, caplog, monkeypatch):
    monkeypatch.setattr(backend, "TELL_AFTER", 0.1)
    double.fail({"kind": "slow-queue", "messages": 6})
    assert ask(double.model("vit", patience=2.0)).shape == (1, tiny.CLASSES)
    assert 1 < caplog.text.count("waiting for") < 6
    assert "position" in caplog.text
    double.fail({"kind": "slow-queue", "messages": 1}, {"kind": "hang", "seconds": 1.5})
    with pytest.raises(RunError, match=r"no news from .* the last was: QUEUED Moved to position 1"):
        ask(double.model("vit", patience=0.5))


@pytest.mark.parametrize("key", ["wrong-key-55aa", ""])
def test_a_wrong_key_or_none(double, monkeypatch, caplog, key):
    monkeypatch.setenv("NDIF_API_KEY", key)
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    with pytest.raises(RequestError, match="did not accept the API key" if key else "wants an API key") as caught:
        ask(double.model("vit"))
    assert "NDIF_API_KEY" in str(caught.value)
    assert not key or key not in str(caught.value) + caplog.text


@pytest.mark.usefixtures("plain_page")
def test_a_run_goes_on_after_a_fault(double, folder, tmp_path):
    out = tmp_path / "run"
    args = ["run", double.folder("vit"), "--data", folder, "--train-split", "train", "--test-split", "test"]
    args += ["--batch-size", 16, "--workers", 0, "--out", out, "--remote", "--host", double.url]
    double.fail(
        {"kind": "error", "text": TRACEBACK, "skip": 8, "times": 99}
    )  # facts, six batches, one: in the test pass
    code, text = invoke(*args)
    assert code == 1
    assert "the trace failed on http://127.0.0.1" in text
    assert "Traceback" not in text
    assert rf.KEY not in text
    sent = sum(entry["up"] for entry in double.log())
    double.fail()
    code, text = invoke(*args, "--resume")
    assert code == 0, text
    went = read_run(out).report.manifest.remote
    assert went["bytes_up"] == sent + sum(entry["up"] for entry in double.log())
    here = tmp_path / "here"
    code, text = invoke(*args[:-5], "--out", here, "--device", "cpu")
    assert code == 0, text
    assert pq.read_table(here / "images.parquet").equals(pq.read_table(out / "images.parquet"))


# -- refusals -------------------------------------------------------------------


def test_what_would_run_here_is_refused(double):
    module = tiny.build("vit")
    with pytest.raises(RequestError, match="its traces would run here"):
        VisionModel(module, remote=double.url)
    with pytest.raises(RequestError, match="no name that a server could know"):
        VisionModel(module).trace(tiny.pixels(1), remote=True)
    away = double.model("vit")
    assert all(p.is_meta for p in away._module.parameters())
    for run in (lambda: away.trace(tiny.pixels(1), trace=False), lambda: away.interleave("forward", tiny.pixels(1))):
        with pytest.raises(RequestError, match="are on http"):
            run()
    with pytest.raises(RequestError, match='remote="local" needs weights'):
        away.trace(tiny.pixels(1), remote="local")
    with pytest.raises(RequestError, match="weights are on a server"):
        away.run_with_cache(tiny.pixels(1), incl_bwd=lambda logits: logits.sum())
    with pytest.raises(RequestError, match="weights are on a server"), away.hooks(bwd_hooks=[("hook_logits", print)]):
        pass
    with pytest.raises(RequestError, match="apply it inside a trace"):
        Head.of(away.family, away.heads)(torch.zeros(1, tiny.WIDTH))
    assert double.log() == []


@pytest.mark.parametrize(
    "given_", [{"config": {"hidden_act": "relu"}}, {"dtype": "float16"}, {"device": "cpu"}, {"device_map": "auto"}]
)
def test_what_only_the_server_decides_is_refused(double, given_):
    with pytest.raises(RequestError, match=next(iter(given_))):
        VisionModel(str(double.folder("vit")), remote=double.url, **given_)


@pytest.mark.parametrize(
    "host",
    ["ftp://a", "127.0.0.1:80", "https://", f"https://me:{rf.KEY}@host", f"https://{rf.KEY}@host", "http://a?key=1"],
)
def test_a_host_is_a_plain_url(double, host):
    with pytest.raises(RequestError) as caught:
        VisionModel(str(double.folder("vit")), remote=host)
    assert rf.KEY not in str(caught.value)


def test_the_command_line_refuses_halves(double, tmp_path):
    for more in (["--host", double.url], ["--per-request", "3"]):
        code, text = invoke("run", double.folder("vit"), "--data", tmp_path, *more)
        assert code == 2
        assert "without --remote" in text
    at = ["--remote", "--host", double.url, "--workers", 0, "--out", tmp_path / "x"]
    code, text = invoke("run", double.folder("vit"), "--data", "zoo", "--limit", 4, "--memory-gb", 1, *at)
    assert code == 2
    assert "--per-request" in text


# -- check ----------------------------------------------------------------------


def test_check_says_what_the_server_has(ndif):
    code, text = invoke("check", ndif.folder("dinov2"), "--remote", "--host", ndif.url)
    assert code == 0, text
    for claim in (
        "the server hosts",
        "are the same there",
        "Python is known there",
        "takes the key",
        "reads and writes there",
    ):
        assert claim in text
    assert re.search(r"3\.\d+ there", text)


def test_check_says_what_the_server_lacks(double, checkpoint):
    at = ["--remote", "--host", double.url]
    double.folder("dinov2")
    code, text = invoke("check", checkpoint("vit"), *at)
    assert code == 1
    assert re.search(r"it hosts: \S.*dinov2 \(image-classification\)", text)
    assert "None" not in text
    double.fail({"kind": "versions", "packages": {"torch": "1.0.0"}})
    code, text = invoke("check", double.folder("vit"), *at)
    assert code == 1
    assert "1.0.0 there" in text
    build = torch.__version__.partition("+")[0] + "+cu999"
    double.fail({"kind": "versions", "packages": {"torch": build}})
    code, text = invoke("check", double.folder("vit"), *at)
    assert code == 0, text
    assert f"{build} there" in text
    code, text = invoke("check", double.folder("vit"), "--remote", "--host", "http://127.0.0.1:9")
    assert code == 1
    assert "cannot be reached" in text
    assert "a run goes on with --resume" in text


@pytest.mark.parametrize("kind", ["as NDIF 0.1 says it", "spelled-out"])
def test_check_reads_every_form_of_status(double, kind):
    model = double.model("vit")
    double.fail({"kind": kind, "times": 99})
    _, hosted, *_ = check_remote(model)
    double.fail()
    assert hosted.holds, hosted
    assert hosted.detail == ("RUNNING" if kind != "spelled-out" else "RUNNING, HOT")


KEY_OF = 'TransformersModel:{"repo_id": "a/b", "revision": "v1", "task": "t"}'


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({f"7d912:ModelActor:{KEY_OF}": {"application_state": "RUNNING"}}, ["a/b v1"]),
        ({f"{n}:ModelActor:{KEY_OF}": {} for n in (1, 2)}, ["a/b v1", "a/b v1"]),
        ({"any name": {"model_key": KEY_OF}}, ["a/b v1"]),
        ({"any name": {"model_key": KEY_OF, "revision": "v2", "repo_id": "b"}}, ["a/b v1"]),
        ({"a/b": {"repo_id": "a/b", "revision": "v3", "deployment_level": "COLD"}}, ["a/b v3"]),
        ({f"ModelActor:{KEY_OF}": {"application_state": "DEPLOYING"}}, ["a/b v1"]),
        ({f"1:ModelActor:{KEY_OF}": {"repo_id": None, "task": None}}, ["a/b v1"]),
        ({f"1:ModelActor:{KEY_OF}": None, "b": "RUNNING"}, ["a/b v1"]),
        ({"1:ModelActor:LanguageModel:{broken": {}, "2:ModelActor:x:[1]": {}, "": {}}, []),
        (None, []),
    ],
)
def test_entries_of_status(entries, found):
    assert [f"{d['repo_id']} {d['revision']}" for d in deployments({"deployments": entries})] == found
    assert deployments({}) == deployments(None) == []


def test_no_log_holds_the_key(double, caplog):
    with caplog.at_level(logging.DEBUG):
        ask(double.model("vit"))
    assert rf.KEY not in caplog.text
