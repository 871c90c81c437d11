"""On a CUDA device: the same ranks as on the CPU, sums that come out alike every time. ``make test-gpu``."""

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from command_line import run
from tiny_readers import ALL, readers

from clsinterp.checks.plain_sweep import sweep
from clsinterp.interventions import derange
from clsinterp.probing.ridge import RidgeStats
from clsinterp.runs.results import read_run
from clsinterp.sweeps.fork import fork
from clsinterp.vision_model import VisionModel

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def sums(device, times=3, d=96, classes=7):
    draw = torch.Generator().manual_seed(0)
    stats = RidgeStats.zeros(2, d, classes, device=device)
    for b in range(times):
        x, index = torch.randn(2, 64, d, generator=draw), torch.arange(64 * b, 64 * (b + 1))
        stats.update(x.to(device), (index * 5) % classes, index)
    return stats.state()


def test_sums_on_the_card_are_those_of_the_cpu_and_the_same_to_the_bit_every_time():
    first, again, cpu = sums(CUDA), sums(CUDA), sums("cpu")
    for name in cpu:
        assert torch.equal(first[name], again[name])
        torch.testing.assert_close(first[name], cpu[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_the_fork_on_the_card_equals_its_naive_twin_there(family, checkpoint):
    m = VisionModel(str(checkpoint(family)), device="cuda")
    x, y = tiny.pixels(11), torch.arange(11) % tiny.CLASSES
    read = readers(m).to(CUDA)
    found = fork(m, x, y, derange(11, 0), read, layers=ALL)
    expected = sweep(m, x.to(CUDA), y.to(CUDA), derange(11, 0), read, layers=ALL)
    assert set(found) == set(expected)
    assert not [name for name in expected if not torch.equal(found[name], expected[name].cpu().long())]
    assert all(rank.device.type == "cpu" for rank in found.values())


@pytest.mark.parametrize("name", ["vit", "deit", "beit", "dinov2", "clip"])
def test_a_run_on_the_card_ranks_as_on_the_cpu(name, tmp_path):
    out = {}
    for device in ("cpu", "cuda"):
        asked = ("--device", device, "--train-per-class", "20", "--test-per-class", "20")
        code, text = run(f"zoo/{name}", "zoo", tmp_path / device, *asked)
        assert code == 0, text
        table = pq.read_table(tmp_path / device / "images.parquet").to_pandas()
        out[device] = table[[column for column in table if column.startswith("rank")]]
    assert (out["cpu"] == out["cuda"]).mean().mean() > 0.999  # of float32 rounded otherwise, one in a thousand may tip
    assert read_run(tmp_path / "cuda")[0]


def test_a_run_on_the_card_is_the_same_to_the_bit_again(tmp_path):
    for which in ("one", "two"):
        few = ("--train-per-class", "20", "--test-per-class", "9")
        code, text = run("zoo/vit", "zoo", tmp_path / which, "--device", "cuda", *few)
        assert code == 0, text
    for file in ("images.parquet", "probes.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_bfloat16_moves_no_curve_by_more_than_a_few_hundredths(tmp_path):
    curves = {}
    for dtype in ("float32", "bfloat16"):
        asked = ("--device", "cuda", "--dtype", dtype, "--test-per-class", "50")
        code, text = run("zoo/vit", "zoo", tmp_path / dtype, *asked)
        assert code == 0, text
        rows = read_run(tmp_path / dtype)[1].to_pylist()
        curves[dtype] = {(r["curve"], r["layer"]): r["value"] for r in rows if r["curve"] in ("shuffle", "probe")}
    assert curves["float32"].keys() == curves["bfloat16"].keys()
    assert max(abs(curves["float32"][key] - curves["bfloat16"][key]) for key in curves["float32"]) < 0.05
