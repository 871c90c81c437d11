"""Remote runs against a double of an NDIF server that has no clsinterp: the same numbers, and what they cost in bytes."""

import re
import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import remote_fixtures as rf
import tiny
import torch
from command_line import invoke_flat as invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_readers import ALL, readers

from clsinterp import interventions as iv
from clsinterp.data.packed import PackedPixels, pack
from clsinterp.errors import RequestError
from clsinterp.hooks.attention import cls_attention
from clsinterp.runs.results import read_run
from clsinterp.sweeps import batching
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.patching import logit_difference, patch_attn_head, patch_resid
from clsinterp.sweeps.variants import Edit, on, variants
from clsinterp.views.intervention import Intervention
from clsinterp.views.lens import lens
from clsinterp.vision_model import VisionModel

BY_NIGHT = [pytest.param(name, marks=pytest.mark.nightly) for name in ("vit-12", "zoo/dinov2")]


# -- the same numbers -----------------------------------------------------------


@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize("name", ["dinov2-12", "zoo/vit", *BY_NIGHT])
def test_the_whole_note_is_the_same_there(ndif, folder, tmp_path, name):
    zoo = name.startswith("zoo/")
    data = (
        ["--data", "zoo", "--limit", "96"]
        if zoo
        else ["--data", folder, "--train-split", "train", "--test-split", "test"]
    )
    more = ["--batch-size", 32 if zoo else 16, "--workers", 0, "--layers=-1,0,3,5,11"]
    more += ["--cls-only", "refit"] if "dinov2" in name else []
    here, there = tmp_path / "here", tmp_path / "there"
    code, text = invoke("run", ndif.folder(name), *data, *more, "--device", "cpu", "--out", here)
    assert code == 0, text
    code, text = invoke("run", ndif.folder(name), *data, *more, "--remote", "--host", ndif.url, "--out", there)
    assert code == 0, text
    assert pq.read_table(here / "images.parquet").equals(pq.read_table(there / "images.parquet"))
    assert pq.read_table(here / "curves.parquet").equals(pq.read_table(there / "curves.parquet"))
    probes, remote_probes = (load_file(run / "probes.safetensors") for run in (here, there))
    assert probes.keys() == remote_probes.keys()
    assert all(torch.equal(probes[k], remote_probes[k]) for k in probes)

    n_batches = 6 if zoo else 6 + 3
    log = ndif.received(1 + n_batches)  # what the server is and has, then one request for each batch
    assert all(entry["names"] == [] for entry in log)  # the server never had clsinterp, nor what it leans on
    local, remote = (read_run(run).report for run in (here, there))
    assert remote.manifest.remote["requests"] == 1 + n_batches
    if log:  # a real server does not say what it received
        assert remote.manifest.remote["bytes_up"] == sum(entry["up"] for entry in log)
        assert remote.manifest.remote["bytes_down"] > sum(entry["down"] for entry in log)
    assert remote.identity.fingerprint == local.identity.fingerprint
    assert (remote.manifest.device, remote.manifest.dtype) == ("cpu", "float32")
    assert all(rf.KEY.encode() not in path.read_bytes() for path in there.rglob("*") if path.is_file())
    assert not any(
        entry["key_inside"] or entry["byte_code"] for entry in log
    )  # byte code fits one version of Python only


@pytest.mark.parametrize("family", [*tiny.FIVE, "beit-mean", "dinov2-registers", "siglip"])
def test_names_views_hooks_and_invokes_work_there(ndif, family):
    away, here = ndif.model(family), VisionModel(str(ndif.folder(family)), device="cpu")
    x = tiny.pixels(3)

    def same(do) -> None:
        found, expected = do(away), do(here)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=ndif.slack)

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


def test_pictures_and_sessions_go_up(ndif, pictures):
    away, here = ndif.model("vit"), VisionModel(str(ndif.folder("vit")), device="cpu")
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
    ndif.received(2)
    with here.trace(images, remote=ndif.url):  # a model that is loaded here can be run there as well
        there = here.logits.save()
    assert torch.equal(there, logits)
    ndif.received(1)


def test_patching_and_attention_work_there(ndif):
    away, here = ndif.model("dinov2"), VisionModel(str(ndif.folder("dinov2")), device="cpu")
    clean, corrupted = tiny.pixels(2, seed=4), tiny.pixels(2, seed=5)
    metric = logit_difference(torch.tensor([0, 1]), torch.tensor([2, 3]))
    for patch, what in ((patch_resid, "resid_pre"), (patch_attn_head, "z")):
        found, expected = (patch(model, clean, corrupted, metric, what, layers=[1, 2]) for model in (away, here))
        assert found.equals(expected)
    assert torch.equal(cls_attention(away, clean), cls_attention(here, clean))


@pytest.mark.parametrize(
    ("family", "replace"),
    [
        *((family, "swap") for family in tiny.FIVE),
        *(("dinov2-registers", replace) for replace in (None, "swap", "mean", "zero", "noise")),
    ],
)
def test_a_lens_view_is_the_same_there(ndif, family, replace):
    away, here = ndif.model(family), VisionModel(str(ndif.folder(family)), device="cpu")
    x, references = tiny.pixels(1)[0], tiny.pixels(2, seed=3)
    edit = Intervention(replace, layer=1, reference=references, cls_only="dinov2" in family)
    found, expected = lens(away, x, edit), lens(here, x, edit)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.output, expected.output)
    assert torch.equal(found.attention, expected.attention)
    assert torch.equal(found.similarity, expected.similarity)
    assert (found.tokens, found.groups, found.grid, found.class_names) == (
        expected.tokens, expected.groups, expected.grid, expected.class_names,
    )  # fmt: skip
    for entry in ndif.received(1):
        assert entry["names"] == []  # the server never had clsinterp, nor what it leans on


def test_the_lens_command_looks_there(ndif, folder, tmp_path):
    picture = next(Path(folder).rglob("*.png"))
    pages = []
    for where in ([], ["--remote", "--host", ndif.url]):
        pages.append(tmp_path / f"{len(where)}.html")
        code, text = invoke("lens", ndif.folder("deit"), picture, "--out", pages[-1], *where)
        assert code == 0, text
    ndif.received(1)
    here, there = (re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "", page.read_text()) for page in pages)
    assert here == there
    code, text = invoke("lens", ndif.folder("deit"), picture, "--host", ndif.url)
    assert code == 2
    assert "without --remote" in text


def test_a_job_can_be_polled_for(ndif):
    away, here = ndif.model("vit"), VisionModel(str(ndif.folder("vit")), device="cpu")
    x = tiny.pixels(2)
    with away.trace(x, blocking=False) as tracer:
        logits = away.logits.save()  # noqa: F841  (the name is the result's)
    done = None
    while done is None:
        done = tracer.backend()
    assert torch.equal(done["logits"], here(x).logits)
    assert all(entry["up"] == away.server.traffic.bytes_up for entry in ndif.received(1))


def test_the_server_knows_the_model_by_nnsights_own_key(ndif):
    key = ndif.model("vit").to_model_key()
    assert key.startswith("nnsight.modeling.transformers.TransformersModel:{")
    assert ndif.model("dinov3").to_model_key().endswith('"task": "image-feature-extraction"}')


@pytest.mark.parametrize("replace", [iv.mean, iv.noise(3), iv.exchange(torch.ones(8, tiny.WIDTH)), "donors"])
def test_the_fork_takes_any_replacement_there(ndif, replace, monkeypatch):
    monkeypatch.setattr(batching, "TOKENS", 33)  # three images
    away, here = ndif.model("deit", per_request=3), VisionModel(str(ndif.folder("deit")), device="cpu")
    x, targets = tiny.pixels(8), torch.arange(8) % tiny.CLASSES
    if replace == "donors":
        replace = iv.derange(8, seed=1)
    expected = fork(here, x, targets, replace, readers(here), layers=ALL)
    whole = fork(away, x, targets, replace, readers(away), layers=ALL)
    ndif.received(1)
    parts = fork(away, x, targets, replace, readers(away), layers=ALL, micro_batch=away.per_request)
    ndif.received(3 + 3)  # the tokens of the whole batch first
    for found in (whole, parts):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("n", "many"), [(2, 300), (24, 8)])
def test_probes_go_up_or_tokens_come_down_whichever_is_less(double, n, many):
    away, here = double.model("vit"), VisionModel(str(double.folder("vit")), device="cpu")
    x, labels = tiny.pixels(n), torch.arange(n) % many
    targets, donors = labels % tiny.CLASSES, iv.derange(n, seed=0)
    found = fork(away, x, targets, donors, readers(away, n_classes=many), layers=ALL, labels=labels)
    expected = fork(here, x, targets, donors, readers(here, n_classes=many), layers=ALL, labels=labels)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (entry,) = double.log()
    probes = len(ALL) * many * tiny.WIDTH * 8  # 384 kB, or 10 kB
    tokens = n * sum(j + 2 for j in range(len(ALL))) * tiny.WIDTH * 4  # 5 kB, or 61 kB
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
    tokens, readout = capture(away, x, ALL)
    here = VisionModel(str(double.folder("dinov2")), device="cpu")
    for found, expected in zip((tokens, readout), capture(here, x, ALL), strict=True):
        assert torch.equal(found, torch.cat([expected]))
    log = double.log()
    assert len(log) == 3
    assert sum(entry["down"] for entry in log) < 1.1 * 4 * (tokens.numel() + readout.numel()) + 3 * 4000


@pytest.mark.parametrize("group", ["patches", ("registers", "cls", "patches")])
def test_any_group_of_tokens_comes_down(ndif, group):
    away, here = ndif.model("dinov2-registers", per_request=4), VisionModel(str(ndif.folder("dinov2-registers")))
    x = tiny.pixels(6)
    found, expected = (capture(m, x, ALL, group) for m in (away, here))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # 4 and 2 images there, 6 here
    ndif.received(2)


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2-registers"])
def test_variants_ride_there(ndif, family, monkeypatch):
    monkeypatch.setattr(batching, "TOKENS", 25)
    away, here = ndif.model(family), VisionModel(str(ndif.folder(family)), device="cpu")
    x, patches = tiny.pixels(6), here.layout.index("patches")
    edits = [
        Edit({-1: on(0, iv.mean), 2: on(patches, iv.noise(7))}),
        Edit({0: on([0, 2], lambda t: t.roll(1, 0)), 1: on(0, iv.zero), 3: on(0, iv.swap(iv.derange(6, seed=2)))}),
        Edit({1: on(patches, iv.mean)}, until=2),
    ]
    close = partial(torch.allclose, rtol=0, atol=ndif.slack)
    found, expected = (variants(m, x, edits, watch="patches", watched=(0, 2, 3)) for m in (away, here))
    assert found.readout.keys() == expected.readout.keys() == {0, 1, 2}
    assert all(close(found.readout[k], expected.readout[k]) for k in expected.readout)
    assert not found.readout[1].requires_grad
    for layer, copies in expected.tokens.items():
        assert found.tokens[layer].keys() == copies.keys()
        assert all(close(found.tokens[layer][k], tokens) for k, tokens in copies.items())
    for entry in ndif.received(1):
        assert entry["names"] == []  # the server never had clsinterp, nor what it leans on
        assert not entry["byte_code"]
    with torch.enable_grad():  # what is down is read out there, whatever mode is on here
        there, own = (variants(m, x, edits[:1]).readout[1] for m in (away, here))
    assert close(there, own)


def test_variants_that_cannot_ride_there(ndif):
    away, x = ndif.model("vit", per_request=3), tiny.pixels(6)
    with pytest.raises(RequestError, match="grad=True"):
        variants(away, x, [], grad=True)
    with pytest.raises(RequestError, match="6 images were given"):
        variants(away, x, [Edit({0: on(0, iv.mean)})])
    ndif.received(0)


def test_the_script_to_copy_runs(ndif, folder, tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "experiments" / "remote_note.py"
    options = ["--data", folder, "--host", ndif.url, "--batch-size", 16, "--limit", 32, "--out", tmp_path / "note"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in (script, ndif.folder("vit"), *options)])
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


def test_logits_that_a_server_drew_at_random_do_not_come_down(ndif):
    tiny.build("dinov2").dinov2.save_pretrained(ndif.root / "bare")
    tiny.processor().save_pretrained(ndif.root / "bare")
    away, x = ndif.model("bare"), tiny.pixels(2)
    assert away.n_classes is None
    assert getattr(away(x), "logits", None) is None
    with pytest.raises(RequestError, match="fit_head"), away.trace(x):
        away.logits.save()
    with pytest.raises(RequestError, match="without remote="):
        away.with_head(away.fit_head((tiny.pixels(6), ["a", "b"] * 3)))
