"""The study of erasure against plain torch, and on models in which it is known what the output depends on."""

import json

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from study_scripts import run

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.interventions import permute
from clsinterp.models.planted import planted
from clsinterp.studies.erasure.erasers import leftover
from clsinterp.studies.setup import Setup


def rows(out, **where):
    table = pq.read_table(out / "erasure.parquet").to_pylist()
    return [r for r in table if all(r[k] == v for k, v in where.items())]


def value(out, **where):
    (row,) = rows(out, **where)
    return row["value"]


def projector(x, labels, n_classes, penalty=0.0):
    """LEACE written out: a matrix and the mean, from tokens in memory."""
    x, z = x.double(), torch.nn.functional.one_hot(labels, n_classes).double()
    mean = x.mean(0)
    cross = (x - mean).mT @ (z - z.mean(0)) / len(x)
    covariance = (x - mean).mT @ (x - mean) / len(x) + penalty / len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    values, q = torch.linalg.eigh(covariance)
    root, inverse = q @ torch.diag(values.sqrt()) @ q.mT, q @ torch.diag(values.rsqrt()) @ q.mT
    u, s, _ = torch.linalg.svd(inverse @ cross, full_matrices=False)
    u = u[:, s > 1e-8]
    return root @ u @ u.mT @ inverse, mean


@pytest.fixture(scope="module")
def done(checkpoint, folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("erasure")
    return lambda family, *words: run(
        "erasure", root / f"{family}{len(words)}", checkpoint(family), "--data", folder, *words
    )


@torch.no_grad()
@pytest.mark.parametrize(("family", "words"), [("dinov2", ("--penalty", "none")), ("deit", ())])
def test_it_equals_one_hooked_forward_each(done, checkpoint, folder, family, words):
    out = done(family, *words)
    s = Setup.open(str(checkpoint(family)), str(folder), batch_size=16, workers=0)
    train = [(plain_forward(s.model, b.pixels), b.labels) for b in s.batches(s.train)]
    labels, held = torch.cat([y for _, y in train]), torch.cat([f[1] for f, _ in train]).mean(0)
    probes, _ = s.read_train()
    layer, later = 1, 3
    penalty = float(probes.alpha[layer]) if not words else 0.0
    p, mean = projector(torch.cat([f[0][layer][:, 0] for f, _ in train]), labels, s.n_classes, penalty)

    def erase(t):
        return (t.double() - (t.double() - mean) @ p.mT).float()

    def alone(x):
        if s.model.family.averages_heads:
            return s.model.heads[0](x[:, : tiny.WIDTH])
        return s.model.heads[0](torch.cat([x[:, : tiny.WIDTH], held[tiny.WIDTH :].expand(len(x), -1)], dim=1))

    found: dict[str, list] = {}
    for b in s.batches(s.test):
        intact = plain_forward(s.model, b.pixels)
        states, readout, logits = plain_forward(s.model, b.pixels, layer, 0, erase)
        index = permute(len(b), (0, b.number))
        swapped = plain_forward(s.model, b.pixels, layer, 0, lambda t, i=index: t[i])[2]
        right, before = logits.argmax(-1) == b.targets, intact[2].argmax(-1) == b.targets
        constant = plain_forward(s.model, b.pixels, layer, 0, lambda t: mean.float().expand_as(t))[2]
        for name, hits in {
            "erased": right, "agreement": logits.argmax(-1) == intact[2].argmax(-1),
            "missing": before.double() - right.double(),
            "misled": right.double() - (swapped.argmax(-1) == b.targets).double(),
            "replaced_by_mean": constant.argmax(-1) == b.targets,
            "erased_cls_only": alone(readout).argmax(-1) == b.targets,
            "intact_probe_after_erasure": probes.scores(states[later][:, 0], later).argmax(-1) == b.labels,
        }.items():  # fmt: skip
            found.setdefault(name, []).append(hits.double())
    for name, hits in found.items():
        where = {"probed_layer": later} if "probe" in name else {}
        assert value(out, curve=name, layer=layer, **where) == pytest.approx(float(torch.cat(hits).mean())), name


def test_a_fresh_probe_is_at_chance_where_the_label_was_erased(done):
    out = done("vit")
    (majority,) = rows(out, curve="majority")
    for layer in range(4):
        # Both read a constant; the intact tokens' probe does by construction, on new images too.
        assert value(out, curve="intact_probe_after_erasure", layer=layer, probed_layer=layer) <= 0.3
        assert value(out, curve="probe_after_erasure", layer=layer, probed_layer=layer) <= 0.3
    assert 0 < majority["value"] < 0.3
    probes = [value(out, curve="probe", layer=i) for i in range(4)]
    assert max(probes) > 0.6  # there was something to erase
    places = {(r["layer"], r["probed_layer"]) for r in rows(out, curve="probe_after_erasure")}
    assert places == {(i, j) for i in range(4) for j in range(i, 4)}
    summary = pq.read_table(out / "summary.parquet").to_pylist()
    assert all(r["back after"] is None for r in summary)  # 42 test images are too few for a verdict
    assert "no verdict below 100" in (out / "summary.md").read_text()
    assert json.loads((out / "run.json").read_text())["identity"]["penalty"] == "probe"


PLANTED = {
    "written, then used": ({"probe_from": 0, "used_from": 2}, {2, 3}, 2),
    "used for one layer": ({"probe_from": 1, "used_from": 1, "used_until": 2, "reads": "patches"}, {1}, 1),
    "never used": ({"probe_from": 1, "used_from": None, "reads": "patches"}, set(), 1),
}


@pytest.mark.parametrize(("case", "used", "written"), PLANTED.values(), ids=PLANTED)
def test_planted_models_lose_the_label_where_they_use_it(case, used, written, tmp_path):
    model = planted(**case, n_layers=4, n_classes=3)
    model.save(tmp_path / "model")
    model.write_images(tmp_path / "data", (10, 20, 30), 12)  # unequal: the mean token says class 2
    out = run("erasure", tmp_path / "out", tmp_path / "model", "--data", tmp_path / "data")
    for layer in range(4):
        # What a token without its label says is the mean's: the most frequent class, right for a third of the images.
        expected = 1 / 3 if layer in used else 1
        for curve in ("erased", "replaced_by_mean"):
            assert value(out, curve=curve, layer=layer) == pytest.approx(expected), (curve, layer)
        assert value(out, curve="missing", layer=layer) == pytest.approx(1 - expected)
        assert value(out, curve="probe_after_erasure", layer=layer, probed_layer=layer) == pytest.approx(1 / 3)
        # The label is back where a later block writes it, and never otherwise.
        for probed in range(layer + 1, 4):
            back = layer < written <= probed or layer < case["probe_from"] <= probed
            expected_probe = 1 if back else 1 / 3
            for kind in ("probe_after_erasure", "intact_probe_after_erasure"):
                assert value(out, curve=kind, layer=layer, probed_layer=probed) == pytest.approx(expected_probe)


def test_what_is_left_is_read_by_halves():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4 // 2
    clear = torch.randn(200, 5, generator=draw) + 8 * labels.unsqueeze(1)
    noise = torch.randn(200, 5, generator=draw)
    left = leftover(torch.stack([clear, noise]), labels, 2)
    assert left[:, 0].all()
    assert 0.35 < left[:, 1].double().mean() < 0.65
    assert not leftover(noise[None, :6], labels[:6], 2).any()  # too few to fit anything
