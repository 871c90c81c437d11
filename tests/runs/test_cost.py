"""The arithmetic of docs/imagenet.md, against counters, files and the page."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
import torch
import transformers as hf
from command_line import invoke
from torch.utils.flop_counter import FlopCounterMode

from clsinterp.probing.head import Head
from clsinterp.runs import cost
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.run import run
from clsinterp.runs.units import ancestors, halves
from clsinterp.runs.workload import Workload
from clsinterp.sweeps.batching import images_at_once
from clsinterp.sweeps.columns import BESIDE, PROBED_BESIDE, parse
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import MOST

ROOT = Path(__file__).parents[2]
TINY = cost.Shape("tiny", tiny.LAYERS, tiny.WIDTH, 1 + (tiny.SIZE // tiny.PATCH) ** 2, 2 * tiny.WIDTH)


def counted(module, n: int) -> int:
    """FLOPs of the matrix products inside the blocks, by torch's counter."""
    blocks = module.get_submodule(type(module).__name__.removesuffix("ForImageClassification").lower())
    with torch.no_grad(), FlopCounterMode(display=False, depth=9) as counter:
        module(tiny.pixels(n))
    layers = getattr(blocks, "layers", None) or blocks.encoder.layer
    prefix = next(name for name, m in module.named_modules() if m is layers)
    wanted = [k for k in counter.get_flop_counts() if f"{prefix}." in k and k.split(f"{prefix}.")[-1].isdigit()]
    return sum(sum(counter.get_flop_counts()[k].values()) for k in wanted)


@pytest.mark.parametrize("swiglu", [False, True])
def test_block_flops_are_what_torch_counts(swiglu):
    if swiglu:
        config = hf.Dinov2Config(**tiny.BASE, mlp_ratio=3, use_swiglu_ffn=True, attn_implementation="eager")
        hidden = (int(3 * tiny.WIDTH * 2 / 3) + 7) // 8 * 8
        shape = replace(TINY, mlp_width=hidden, mlp_matrices=3)
        module = hf.Dinov2ForImageClassification(config)
    else:
        shape, module = TINY, hf.ViTForImageClassification(hf.ViTConfig(**tiny.BASE, attn_implementation="eager"))
    assert counted(module.eval(), 3) == 3 * tiny.LAYERS * shape.block_flops


@pytest.mark.parametrize(("micro", "memory"), [(None, 1e12), (2, 1.0)])
def test_the_fork_makes_as_many_block_passes_as_counted(model, micro, memory):
    m, n, rows = model("vit"), 4, []
    hooks = [b.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))) for b in m._module.vit.layers]
    try:
        fork(m, tiny.pixels(n), torch.arange(n), torch.arange(n), Readers(Head.of(m.family, m.heads)),
             layers=range(tiny.LAYERS), micro_batch=micro)  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    assert sum(rows) == n * TINY.test_passes(memory, batch=n)


@pytest.mark.parametrize(("family", "prefix", "layers"), [
    ("deit", (("cls", 1), ("distill", 1)), (-1, 0, 3)),
    ("dinov2-registers", (("cls", 1), ("registers", 2)), None),
])  # fmt: skip
def test_a_run_goes_through_as_many_blocks_as_it_says(
    checkpoint, folder, tmp_path, monkeypatch, caplog, family, prefix, layers
):
    request = Request(str(checkpoint(family)), str(folder), batch_size=16, layers=layers, swaps=2, limit=24,
                      also=("erasure", "rereading"))  # fmt: skip
    resources = Resources("cpu", workers=0)
    with caplog.at_level("INFO", "clsinterp"):  # what --verbose shows
        workload, rows = Workload.of(request, resources), []
    m = workload.model
    for block in m._module.get_submodule(m.family.blocks):
        getattr(block, m.family.ln1).register_forward_hook(lambda _m, _a, out: rows.append(len(out)))
    monkeypatch.setattr("clsinterp.sweeps.batching.TOKENS", 10**9)  # whole batches, whose hooks see every row
    monkeypatch.setattr(Workload, "of", lambda *_: workload)
    out = run(request, tmp_path / "r", resources=resources)
    passes = workload.block_passes
    assert [r.getMessage() for r in caplog.records if "block-passes" in r.msg] == [
        f"block-passes of an image, {what}: {n}" for what, n in passes.items()
    ]
    images = {name: len(workload.train if name == "train" else workload.test) for name in passes}
    assert sum(rows) == sum(images[name] * passes[name] for name in passes)
    assert list(passes) == ["train", "test", "test, --also erasure", "test, --also rereading"]
    if layers is None:
        shape = replace(TINY, n_readouts=2, prefix=prefix)
        assert passes["test"] == 2 * shape.fork_passes
        assert passes["test, --also erasure"] == shape.also_passes(["erasure"]) == shape.fork_passes
        assert passes["test, --also rereading"] == shape.also_passes(["rereading"])
        read = [parse(name) for name in pq.read_schema(out / "images.parquet").names]
        beside = [c for c in read if c is not None and c.kind == "rank" and c.curve in (*BESIDE, *PROBED_BESIDE)]
        assert len(beside) == shape.also_columns(["erasure", "rereading"])


def test_edited_copies_need_memory_too(model):
    """As many images ride at once as a budget says that holds so many, no more and no fewer."""
    m = model("vit")
    for also, copies in (((), tiny.LAYERS), (("rereading",), MOST)):
        budget = 5.5 * TINY.fork_bytes(also) / 1e9
        assert images_at_once(m, tiny.SIZE, tiny.SIZE, copies, budget) == 5
    long = replace(TINY, n_layers=MOST + 4)
    assert long.fork_bytes(("rereading",)) == long.fork_bytes()
    assert TINY.test_passes(5 * TINY.fork_bytes(), 5) == TINY.fork_passes
    more = TINY.test_passes(5 * TINY.fork_bytes(), 5, also=("erasure",))
    assert more == 2 * TINY.fork_passes + tiny.LAYERS  # the swaps ride in fewer images at a time


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_bytes_are_those_of_the_files(checkpoint, folder, tmp_path, family):
    out = tmp_path / "r"
    arguments = ["run", checkpoint(family), "--data", folder, "--out", out, "--workers", 0, "--quiet"]
    assert invoke(*arguments, "--stage", "train")[0] == 0
    size = (out / ".work" / "train-00000-00001.safetensors").stat().st_size
    shape = replace(TINY, n_readouts=2 if family == "dinov2" else 1)
    assert 0 < size - shape.statistics_bytes(tiny.CLASSES) < 1000  # the header
    assert invoke(*arguments, "--resume")[0] == 0
    read = [parse(name) for name in pq.read_schema(out / "images.parquet").names]
    assert sum(c is not None and c.kind == "rank" for c in read) == shape.rank_columns


@pytest.mark.parametrize("shape", cost.SHAPES, ids=lambda s: s.name)
def test_the_plan_by_hand(shape):
    """For round figures: 1e12 FLOPs a second in every product, the fork at half of that."""
    m = cost.Measured("x", False, 1e12, {shape.name: 5e11}, 1e10, 4.0, 768, 0.01)
    one = cost.plan(shape, m, cost.Device("gpu", 2e12, 1e15), 1)
    forward = shape.n_layers * shape.block_flops / 1e12
    stats = shape.n_layers * 2 * shape.d_model**2 / 1e10
    assert one["train"] == pytest.approx(1_281_167 * (forward + stats))
    assert one["test"] == pytest.approx(50_000 * (shape.n_layers + 1) / 2 * forward)
    assert one["solve"] == pytest.approx(shape.n_layers * 4 * (shape.d_model / 768) ** 3)
    assert one["total"] == pytest.approx(one["train"] + one["solve"] + one["test"])
    beside = cost.plan(shape, m, cost.Device("gpu", 2e12, 1e15), 1, ["erasure"])
    assert beside["solve"] == pytest.approx(3 * one["solve"])  # the probe's, for its penalty once more, and a fresh one
    again = {12: 78, 24: 24 + 300, 40: 2 * 40 + 820}[
        shape.n_layers
    ]  # in groups of 16 copies, each with the intact rows
    assert beside["test"] == pytest.approx(one["test"] * (1 + again / shape.fork_passes))
    assert beside["train"] == one["train"]
    many = cost.plan(shape, m, cost.Device("gpu", 2e12, 1e15), 64)
    assert one["total"] / 64 < many["total"] < one["total"] / 30


def test_the_disk_never_holds_more_files_than_the_page_says():
    """One worker, units in order, neighbours added up as they complete; a sum is written before its parts go."""
    for n in (1, 2, 5, 64, 101, 143):
        there, most = set(), 0
        for unit in range(n):
            there.add((unit, unit + 1))
            most = max(most, len(there))
            for both in ancestors(unit, n)[1:]:
                if not there.issuperset(halves(both)):
                    break
                most = max(most, len(there) + 1)
                there = there - set(halves(both)) | {both}
        assert there == {(0, n)}
        assert most <= (n - 1).bit_length() + 2


def test_the_page_says_what_the_figures_give():
    path = ROOT / "experiments" / "cost_figures.py"
    spec = importlib.util.spec_from_file_location("cost_figures", path)
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    page = (ROOT / "docs" / "imagenet.md").read_text()
    measured = cost.Measured.read(ROOT / "docs" / "bench.json")
    assert page == figures.put_into(page, measured)
    assert page != figures.put_into(page, replace(measured, matmul_flops=measured.matmul_flops * 2))
    assert json.loads((ROOT / "docs" / "bench.json").read_text())["passes"].keys() == {s.name for s in cost.SHAPES}
