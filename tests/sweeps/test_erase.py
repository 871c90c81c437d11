"""``--also erasure``: the run's columns against a hooked forward each, whole and in shards."""

import pyarrow.parquet as pq
import pytest
import tiny
import torch

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.data.batches import batches
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError, TooEarly
from clsinterp.figures.also import also_figures
from clsinterp.probing.leace import erased, leace
from clsinterp.probing.metrics import ranks
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.probing.streams import fit_ridge
from clsinterp.runs.request import Request, Resources, Scope
from clsinterp.runs.results import read_run
from clsinterp.runs.run import run
from clsinterp.runs.units import Shard
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.columns import PROBED_BESIDE, column, columns, parse
from clsinterp.sweeps.erase import erasures, fit_eraser

LAYERS = (-1, 1, 3)


@torch.no_grad()
def test_a_run_with_erasure_equals_one_forward_each(checkpoint, folder, model, tmp_path):
    m = model("dinov2")
    request = Request(str(checkpoint("dinov2")), str(folder), batch_size=16, layers=LAYERS, also=("erasure",), swaps=2)
    out = run(request, tmp_path / "whole", resources=Resources("cpu", workers=0))
    images = pq.read_table(out / "images.parquet")
    train, test = open_data(str(folder))
    stats = RidgeStats.zeros(len(LAYERS), m.d_model, tiny.CLASSES)
    labels, held, seen = torch.tensor(train.labels), [], []
    for b, x in enumerate(batches(train, m.image_processor, 16, workers=0)):
        index = torch.arange(b * 16, b * 16 + len(x))
        found, readout = capture(m, x, LAYERS)
        stats.update(found, labels[index], index)
        held.append(readout)
        seen.append(found.transpose(0, 1))
    probes, rest = solve(stats), torch.cat(held).mean(0)
    of_test = torch.tensor(test.labels)
    first = images.filter([s == 0 for s in images["swap"].to_pylist()])
    for i, layer in enumerate(LAYERS):
        eraser = leace(stats, i, float(probes.alpha[i]))
        fresh = fit_ridge([(eraser(torch.cat(seen)[:, i].double())[None], labels)], tiny.CLASSES)
        said, alone, at = [], [], {j: [] for j in LAYERS[i:]}
        for x in batches(test, m.image_processor, 16, workers=0):
            states, readout, logits = plain_forward(m, x, layer, 0, eraser)
            said.append(logits.argmax(-1))
            for j in at:
                at[j].append(states[j][:, 0])
            only = torch.cat([readout[:, : tiny.WIDTH], rest[tiny.WIDTH :].expand(len(x), -1)], dim=1)
            alone.append(m.heads[0](only).argmax(-1))
        assert first[f"answer_erased_{layer:02d}"].to_pylist() == torch.cat(said).tolist()
        assert first[f"answer_erased_cls_only_{layer:02d}"].to_pylist() == torch.cat(alone).tolist()
        tokens = {j: torch.cat(parts) for j, parts in at.items()}
        expected = ranks(fresh.scores(tokens[layer], 0), of_test)
        assert first[f"rank_probe_after_erasure_{layer:02d}"].to_pylist() == expected.tolist()
        for j in LAYERS[i + 1 :]:
            expected = ranks(probes.scores(tokens[j], LAYERS.index(j)), of_test)
            assert first[f"rank_intact_probe_after_erasure_{layer:02d}_{j:02d}"].to_pylist() == expected.tolist()
    written = [c for name in images.column_names if (c := parse(name)) and c.curve in PROBED_BESIDE]
    assert sorted(column(c.curve, *c.layers) for c in written) == sorted(columns(LAYERS, PROBED_BESIDE))
    curves = pq.read_table(out / "curves.parquet").to_pylist()
    after = {(r["curve"], r["layer"], r["probed_layer"]) for r in curves if r["metric"] == "accuracy"}
    assert after >= {("probe_after_erasure", layer, None) for layer in LAYERS}
    assert after >= {("intact_probe_after_erasure", *pair) for pair in ((-1, 1), (-1, 3), (1, 3))}
    names = {(r["curve"], r["metric"]) for r in curves if r["curve"].startswith("erased")}
    wanted = {"accuracy", "top5", "agreement", "cost"}
    assert names == {(curve, metric) for curve in ("erased", "erased_cls_only") for metric in wanted}
    assert all(r["n"] == len(test) and r["mode"] is None for r in curves if r["curve"].startswith("erased"))

    def shard(k):
        return run(request, tmp_path / "parts", resources=Resources("cpu", workers=0), scope=Scope(shard=Shard(k, 2)))

    with pytest.raises(TooEarly):
        shard(1)
    parts = [shard(2), shard(1)][0]
    assert pq.read_table(parts / "images.parquet").equals(images)


@pytest.mark.parametrize("penalty", [0.0, 5.0])
def test_the_sums_of_erased_tokens_follow_from_those_of_the_tokens(penalty):
    draw = torch.Generator().manual_seed(1)
    labels, index = torch.randint(0, 3, (90,), generator=draw), torch.arange(90)
    x = torch.randn(2, 90, 6, generator=draw, dtype=torch.float64) * torch.logspace(-2, 2, 6) + 3 * labels[:, None]
    x[..., 5] = x[..., 4]  # rank-deficient
    stats = RidgeStats.zeros(2, 6, 3)
    stats.update(x, labels, index)
    eraser, direct = leace(stats, 1, penalty), RidgeStats.zeros(1, 6, 3)
    direct.update(eraser(x[1:]), labels, index)
    found, scale = erased(stats, 1, eraser), direct.gram.abs().max()
    for name, value in direct.state().items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-9, atol=1e-12 * float(scale))
    one, other = solve(found, (1e-3, 1.0)), solve(direct, (1e-3, 1.0))
    torch.testing.assert_close(one.bias, other.bias, rtol=1e-9, atol=1e-9)
    assert one.weight.abs().max() * x.std() < 1e-9  # nothing to go by
    assert solve(stats, (1e-3, 1.0)).weight[1].abs().max() * x.std() > 0.1


def test_layers_with_fewer_directions_are_filled_up_with_zeros(model):
    m = model("vit")
    stats = RidgeStats.zeros(1, m.d_model, 4)
    x = torch.randn(30, m.d_model, generator=torch.Generator().manual_seed(0))
    stats.update(torch.ones(1, 30, m.d_model), torch.arange(30) % 4, torch.arange(30))
    made = fit_eraser(stats, (1e-6, 1.0))
    assert made["left"].shape == (m.d_model, 3)
    assert made["right"].abs().max() == 0
    fitted = {key: value.unsqueeze(0) for key, value in made.items()}
    edits = erasures(m, (2,), fitted)
    assert list(edits) == [("erased", 2)]
    h = x[:, None].repeat(1, 3, 1)
    assert torch.equal(edits["erased", 2].at[2](h.clone()), h)


def test_a_model_without_a_cls_token_and_an_unknown_name_are_refused(checkpoint, folder, tmp_path):
    with pytest.raises(RequestError, match="siglip model has no CLS token"):
        run(
            Request(str(checkpoint("siglip")), str(folder), also=("erasure",)),
            tmp_path / "x",
            resources=Resources("cpu"),
        )
    with pytest.raises(RequestError, match="erasure, rereading"):
        Request("vit", "data", also=("eraser",))


def test_its_figure_draws_what_the_run_has(checkpoint, folder, tmp_path):
    request = Request(str(checkpoint("deit")), str(folder), batch_size=16, limit=24, layers=(0, 3), also=("erasure",))
    report, curves = read_run(run(request, tmp_path / "run", resources=Resources("cpu", workers=0)))
    (figure,) = also_figures(curves, report.facts)
    erased = {r["layer"]: r["value"] for r in curves.to_pylist() if (r["curve"], r["metric"]) == ("erased", "accuracy")}
    (line,) = [t for t in figure.data if t.name == "the label erased" and t.xaxis == "x" and t.customdata is not None]
    assert dict(zip(line.x, line.y, strict=True)) == erased
    assert {t.name for t in figure.data if t.customdata is not None} == {
        f"{what}{which}"
        for what in ("the label erased", "the run's replacement")
        for which in ("", ", CLS read-out alone")
    } | {
        "probe, intact", "fresh probe where the label was erased",
        "intact tokens' probe at the next layer", "intact tokens' probe at the last layer",
    }  # fmt: skip
    (later,) = [r for r in curves.to_pylist() if r["curve"] == "intact_probe_after_erasure"]
    (point,) = [
        t for t in figure.data if t.name == "intact tokens' probe at the last layer" and t.customdata is not None
    ]
    assert (point.x, point.y) == ((0,), (later["value"],))
