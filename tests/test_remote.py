"""Remote runs against a double of an NDIF server that has no clsinterp: the same numbers, and every fault said plainly."""

import logging
import runpy
import sys
from pathlib import Path

import nnsight.ndif
import numpy as np
import pyarrow.parquet as pq
import pytest
import remote_fixtures as rf
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_run import invoke

from clsinterp import interventions as iv
from clsinterp.capture import capture
from clsinterp.checkpoint import zoo_names
from clsinterp.errors import RequestError, RunError
from clsinterp.fork import Readers, fork
from clsinterp.model import VisionModel
from clsinterp.probes import RidgeStats, solve
from clsinterp.readout import Head
from clsinterp.remote import backend
from clsinterp.remote.pixels import PackedPixels, pack
from clsinterp.remote.server import Server
from clsinterp.results import read_run

LAYERS = (-1, 0, 1, 2, 3)
ZOO_HERE = [f"zoo/{name}" for name in zoo_names() if name in ("vit", "dinov2")]


@pytest.fixture(scope="session")
def double(tmp_path_factory):
    found, process = rf.start(tmp_path_factory.mktemp("double"))
    yield found
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def _clean(request, monkeypatch):
    monkeypatch.setenv("NDIF_API_KEY", rf.KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # nnsight ships what it finds on sys.path, so this package too when the tests run from its folder; a user's is installed.
    monkeypatch.setattr(nnsight.ndif, "_PULLED_ENV", True)
    monkeypatch.setattr("cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES", set())
    if "double" in request.fixturenames:
        server = request.getfixturevalue("double")
        server.fail()
        server.log()


def readers(model: VisionModel, n_classes: int = tiny.CLASSES) -> Readers:
    stats = RidgeStats(len(LAYERS), model.d_model, n_classes)
    draw = torch.randn(len(LAYERS), 60, model.d_model, generator=iv.generator(5))
    stats.update(draw, torch.arange(60) % n_classes, torch.arange(60))
    return Readers(Head.of(model.family, model.heads), probes=solve(stats), probed=LAYERS)


# -- the same numbers -----------------------------------------------------------


@pytest.mark.parametrize("name", ["vit-12", "dinov2-12", *ZOO_HERE])
def test_the_whole_note_is_the_same_there(double, folder, tmp_path, name):
    zoo = name.startswith("zoo/")
    data = (
        ["--data", "zoo", "--limit", "96"]
        if zoo
        else ["--data", folder, "--train-split", "train", "--test-split", "test"]
    )
    more = ["--batch-size", 32 if zoo else 16, "--workers", 0, "--layers=-1,0,3,5,11"]
    more += ["--cls-only", "refit"] if "dinov2" in name else []
    here, there = tmp_path / "here", tmp_path / "there"
    code, text = invoke("run", double.folder(name), *data, *more, "--device", "cpu", "--out", here)
    assert code == 0, text
    code, text = invoke("run", double.folder(name), *data, *more, "--remote", "--host", double.url, "--out", there)
    assert code == 0, text
    assert pq.read_table(here / "images.parquet").equals(pq.read_table(there / "images.parquet"))
    assert pq.read_table(here / "curves.parquet").equals(pq.read_table(there / "curves.parquet"))
    probes, remote_probes = (load_file(run / "probes.safetensors") for run in (here, there))
    assert probes.keys() == remote_probes.keys()
    assert all(torch.equal(probes[k], remote_probes[k]) for k in probes)

    log = double.log()
    n_batches = 6 if zoo else 6 + 3
    assert len(log) == 1 + n_batches  # what the server is and has, then one request for each batch
    assert {tuple(entry["names"]) for entry in log} == {()}  # the server never had clsinterp, nor what it leans on
    facts, remote_facts = (read_run(run)[0] for run in (here, there))
    assert remote_facts["remote"]["bytes_up"] == sum(entry["up"] for entry in log)
    assert remote_facts["remote"]["bytes_down"] > sum(entry["down"] for entry in log)
    assert remote_facts["remote"]["requests"] == len(log)
    assert remote_facts["identity"]["fingerprint"] == facts["identity"]["fingerprint"]
    assert (remote_facts["device"], remote_facts["dtype"]) == ("cpu", "float32")
    assert all(rf.KEY.encode() not in path.read_bytes() for path in there.rglob("*") if path.is_file())
    assert not any(
        entry["key_inside"] or entry["byte_code"] for entry in log
    )  # byte code fits one version of Python only


@pytest.mark.parametrize("family", [*tiny.FIVE, "beit-mean", "dinov2-registers", "siglip"])
def test_names_views_hooks_and_invokes_work_there(double, family):
    away, here = double.model(family), VisionModel(str(double.folder(family)), device="cpu")
    x = tiny.pixels(3)

    def same(do) -> None:
        found, expected = do(away), do(here)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def views(model):
        group = "cls" if model.family.has_cls else "patches"
        with model.trace(x):
            block = model.blocks[1]
            read = getattr(block, group).clone().save()
            setattr(block, group, iv.mean(getattr(block, group)))
            model.blocks[2].patches[:] = 0.5 * model.blocks[2].patches
            resid = model.blocks[3].resid.save()
            readout = model.readout.save()
            logits = model.logits.save()
        return read, resid, readout, logits

    def cached(model):
        with torch.no_grad():  # as there: with gradients on, BEiT's attention takes another kernel
            logits, cache = model.run_with_cache(x)
        return logits, *(cache[name] for name in model.hook_names() if name in cache)

    def hooked(model):
        def ablate(z, hook):
            z[:, :, hook.layer() % 2] = 0

        def roll(pattern, hook):
            return pattern.roll(1, dims=0)

        with torch.no_grad():
            return (
                model.run_with_hooks(x, [("blocks.1.attn.hook_z", ablate), ("blocks.2.attn.hook_pattern", roll)]),
                model(x).logits,
            )

    def invoked(model):
        with model.trace() as tracer:
            with tracer.invoke(x[:1]):
                first = model.blocks[0].patches.save()
            with tracer.invoke(x[1:]):
                model.blocks[1].patches = iv.zero(model.blocks[1].patches)
                second = model.logits.save()
        return first, second

    for do in (views, cached, hooked, invoked):
        same(do)


def test_pictures_and_sessions_go_up(double, pictures):
    away, here = double.model("vit"), VisionModel(str(double.folder("vit")), device="cpu")
    images = [pictures(label, 0, size=41) for label in range(5)]

    def session(model):
        with model.session():
            with model.trace(images):
                tokens = model.blocks[2].cls
            with model.trace(images):
                model.blocks[0].cls = tokens
                logits = model.logits.save()
        return logits

    assert torch.equal(session(away), session(here))
    with away.trace(images):
        logits = away.logits.save()
    assert torch.equal(logits, here(images).logits)
    assert len(double.log()) == 2
    with here.trace(images, remote=double.url):  # a model that is loaded here can be run there as well
        there = here.logits.save()
    assert torch.equal(there, logits)
    assert len(double.log()) == 1


def test_a_job_can_be_polled_for(double):
    away, here = double.model("vit"), VisionModel(str(double.folder("vit")), device="cpu")
    x = tiny.pixels(2)
    with away.trace(x, blocking=False) as tracer:
        logits = away.logits.save()  # noqa: F841  (the name is the result's)
    done = None
    while done is None:
        done = tracer.backend()
    assert torch.equal(done["logits"], here(x).logits)
    assert away.server.traffic.bytes_up == double.log()[0]["up"]


def test_the_server_knows_the_model_by_nnsights_own_key(double):
    key = double.model("vit").to_model_key()
    assert key.startswith("nnsight.modeling.transformers.TransformersModel:{")
    assert double.model("dinov3").to_model_key().endswith('"task": "image-feature-extraction"}')


@pytest.mark.parametrize("replace", [iv.mean, iv.noise(3), iv.exchange(torch.ones(8, tiny.WIDTH)), "donors"])
def test_the_fork_takes_any_replacement_there(double, replace):
    away, here = double.model("deit", per_request=3), VisionModel(str(double.folder("deit")), device="cpu")
    x, targets = tiny.pixels(8), torch.arange(8) % tiny.CLASSES
    if replace == "donors":
        replace = iv.derange(8, seed=1)
    expected = fork(here, x, targets, replace, readers(here), layers=LAYERS)
    whole = fork(away, x, targets, replace, readers(away), layers=LAYERS)
    assert len(double.log()) == 1
    parts = fork(away, x, targets, replace, readers(away), layers=LAYERS, micro_batch=away.per_request)
    assert len(double.log()) == 3 + 3  # the tokens of the whole batch first
    for found in (whole, parts):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("n", "many"), [(2, 300), (24, 8)])
def test_probes_go_up_or_tokens_come_down_whichever_is_less(double, n, many):
    away, here = double.model("vit"), VisionModel(str(double.folder("vit")), device="cpu")
    x, labels = tiny.pixels(n), torch.arange(n) % many
    targets, donors = labels % tiny.CLASSES, iv.derange(n, seed=0)
    found = fork(away, x, targets, donors, readers(away, many), layers=LAYERS, labels=labels)
    expected = fork(here, x, targets, donors, readers(here, many), layers=LAYERS, labels=labels)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (entry,) = double.log()
    probes = len(LAYERS) * many * tiny.WIDTH * 8  # 384 kB, or 10 kB
    tokens = n * sum(j + 2 for j in range(len(LAYERS))) * tiny.WIDTH * 4  # 5 kB, or 61 kB
    code = 120_000
    if tokens < probes:
        assert entry["plain"] < code + 4 * x.numel() < probes
        assert entry["down"] > 0.5 * tokens
    else:
        assert entry["plain"] < code + 4 * x.numel() + probes
        assert entry["down"] < 0.2 * tokens


def test_only_cls_tokens_and_readout_come_down_for_the_probes(double):
    away = double.model("dinov2", per_request=20)
    x = tiny.pixels(50)
    tokens, readout = capture(away, x, LAYERS)
    here = VisionModel(str(double.folder("dinov2")), device="cpu")
    for found, expected in zip((tokens, readout), capture(here, x, LAYERS), strict=True):
        assert torch.equal(found, torch.cat([expected]))
    log = double.log()
    assert len(log) == 3
    assert sum(entry["down"] for entry in log) < 1.1 * 4 * (tokens.numel() + readout.numel()) + 3 * 4000


def test_the_script_to_copy_runs(double, folder, tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[1] / "experiments" / "remote_note.py"
    options = ["--data", folder, "--host", double.url, "--batch-size", 16, "--limit", 32, "--out", tmp_path / "note"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in (script, double.folder("vit"), *options)])
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert "5 requests" in said
    assert "shuffle" in said


# -- bytes ----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 3), st.integers(0, 9), st.sampled_from([torch.float32, torch.float16]))
def test_packing_is_exact_or_not_done(levels, channels, seed, dtype):
    draw = np.random.default_rng(seed)
    values = torch.from_numpy(draw.normal(size=(channels, levels))).to(dtype)
    pixels = torch.stack([v[torch.from_numpy(draw.integers(levels, size=(2, 20, 20)))] for v in values], dim=1)
    packed = pack(pixels)
    most = max(len(pixels[:, c].unique()) for c in range(channels))
    assert isinstance(packed, PackedPixels) == (most <= 256)
    unpacked = packed.unpack() if isinstance(packed, PackedPixels) else packed
    assert unpacked.dtype == dtype
    assert torch.equal(unpacked, pixels)


def test_pixels_of_a_processor_travel_as_bytes(double, pictures):
    away = double.model("vit")
    images = [pictures(i % 7, i, size=60) for i in range(16)]
    pixels = away.pixels(images)
    assert isinstance(pack(pixels), PackedPixels)
    assert not isinstance(pack(torch.full((1, 3, 2, 2), float("nan"))), PackedPixels)
    with away.trace(pixels):
        away.logits.save()
    (entry,) = double.log()
    assert entry["up"] < pixels.numel() + 30_000  # a byte each, and the code
    before = away.server.traffic.bytes_up
    assert before == entry["up"]


# -- faults ---------------------------------------------------------------------

TRACEBACK = (
    'Traceback (most recent call last):\n  File "x/forward.py", line 7, in forward\nValueError: no such thing KEY'
)
LASTING = {
    "model not hosted": ({"kind": "error", "text": "Could not deploy this model. It is large"}, RequestError, "does not host"),
    "too large": ({"kind": "too-large", "bytes": 1000}, RequestError, r"too large .* --per-request"),
    "result lost": ({"kind": "lose"}, RunError, r"lost a result .*404.* --resume"),
    "result cut": ({"kind": "truncate"}, RunError, r"lost a result .*bytes that are no result"),
    "connection lost": ({"kind": "drop"}, RunError, r"lost a result .*the job was RUNNING"),
    "traceback": ({"kind": "error", "text": TRACEBACK}, RunError, "forward.py line 7: ValueError: no such thing"),
    "memory": ({"kind": "error", "text": "torch.OutOfMemoryError: CUDA out of memory."}, RunError, "--per-request"),
    "timeout": ({"kind": "error", "text": "Your job exceeded the execution timeout of 60s."}, RunError, "--per-request"),
    "another class": (
        {"kind": "error", "text": "a\nnnsight.x.UnknownPersistentIdError: Module:model.vit"}, RequestError, "another class",
    ),
    "a module": (
        {"kind": "error", "text": "a\nModuleNotFoundError: No module named 'mine'"}, RunError, r"nnsight.register\('mine'\)",
    ),
    "not available": ({"kind": "unavailable"}, RunError, r"not available \(503.* --resume"),
    "preempted": ({"kind": "error", "text": "Your job was cancelled or preempted by the server."}, RunError, "--resume"),
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
    with pytest.raises(RunError, match=r"test_remote.py line \d+: .*"), model.trace(tiny.pixels(1)):
        model.logits = model.blocks[0].cls @ model.blocks[1].cls


def test_a_server_that_is_not_there(double, free_port):
    model = VisionModel(
        str(double.folder("vit")), remote=Server(f"http://127.0.0.1:{free_port}", tries=2, backoff=0.01)
    )
    with pytest.raises(RunError, match=r"cannot be reached .* --resume"):
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
    facts, _ = read_run(out)
    assert facts["remote"]["bytes_up"] == sent + sum(entry["up"] for entry in double.log())
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


def test_check_says_what_the_server_has(double, checkpoint):
    at = ["--remote", "--host", double.url]
    code, text = invoke("check", double.folder("dinov2"), *at)
    assert code == 0, text
    for claim in (
        "the server hosts",
        "are the same there",
        "Python is known there",
        "takes the key",
        "reads and writes there",
    ):
        assert claim in text
    assert f"{sys.version_info.major}.{sys.version_info.minor} there" in text
    code, text = invoke("check", checkpoint("vit"), *at)
    assert code == 1
    assert "it hosts: " in text
    double.fail({"kind": "versions", "packages": {"torch": "1.0.0"}})
    code, text = invoke("check", double.folder("vit"), *at)
    assert code == 1
    assert "1.0.0 there" in text
    code, text = invoke("check", double.folder("vit"), "--remote", "--host", "http://127.0.0.1:9")
    assert code == 1
    assert "cannot be reached" in text


def test_no_log_holds_the_key(double, caplog):
    with caplog.at_level(logging.DEBUG):
        ask(double.model("vit"))
    assert rf.KEY not in caplog.text
