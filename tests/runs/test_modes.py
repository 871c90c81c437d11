"""What a run can replace, and by what: modes, groups, several swaps, kinds of CLS-only."""

import json
import os
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import run
from safetensors.torch import load_file

from clsinterp import interventions as iv
from clsinterp.data.sources import open_data
from clsinterp.runs.results import read_run


def measured(checkpoint, folder, out, *more):
    code, text = run(checkpoint, folder, out, "--layers", "0,3", *more)
    assert code == 0, text
    return pq.read_table(out / "images.parquet"), read_run(out), text


def accuracy(curves, curve, layer=None, metric="accuracy"):
    return next(r for r in curves.to_pylist() if (r["curve"], r["layer"], r["metric"]) == (curve, layer, metric))


@pytest.mark.parametrize("mode", iv.REPLACEMENTS)
def test_modes_without_donors_have_no_donor_curves_and_the_best_constant_as_floor(checkpoint, folder, tmp_path, mode):
    images, (report, curves), _ = measured(checkpoint("vit"), folder, tmp_path / "r", "--mode", mode)
    assert images["donor"].null_count == len(images)
    assert not [name for name in images.column_names if "rank_donor" in name]
    assert report.collision_rate is None
    assert report.facts.floors["use"] == pytest.approx(1 / 7)
    assert {r["mode"] for r in curves.to_pylist() if r["curve"] == "shuffle"} == {mode}
    page = (tmp_path / "r" / "figure.html").read_text()
    assert "best constant answer" in page
    assert "donor's label" not in page


def test_a_mean_is_the_batchs_in_every_row(checkpoint, folder, tmp_path, model):
    images, _, _ = measured(checkpoint("vit"), folder, tmp_path / "r", "--mode", "mean", "--memory-gb", "0.001")
    m, (_, test) = model("vit"), open_data(str(folder))
    pixels = m.pixels([test.image(i) for i in range(16)])
    with torch.no_grad(), m.trace(pixels):
        m.blocks[3].cls = m.blocks[3].cls.mean(0, keepdim=True).expand(16, -1)
        answer = m.logits.argmax(-1).save()
    assert images["answer_shuffle_03"].to_pylist()[:16] == answer.tolist()


@pytest.mark.parametrize("group", ["distill", "cls+distill", "patches"])
def test_other_tokens_can_be_swapped(checkpoint, folder, tmp_path, model, group):
    images, (report, _), _ = measured(checkpoint("deit"), folder, tmp_path / "r", "--group", group)
    assert report.facts.group == group
    m, (_, test) = model("deit"), open_data(str(folder))
    pixels, donors = m.pixels([test.image(i) for i in range(16)]), images["donor"].to_pylist()[:16]
    where = {"distill": [1], "cls+distill": [0, 1], "patches": list(range(2, 11))}[group]
    with torch.no_grad(), m.trace(pixels):
        h = m.blocks[0].resid
        h[:, where] = h[donors][:, where].clone()
        m.blocks[0].resid = h
        answer = m.logits.argmax(-1).save()
    assert images["answer_shuffle_00"].to_pylist()[:16] == answer.tolist()


def test_tokens_that_are_not_there_are_refused_before_anything_is_written(checkpoint, folder, tmp_path):
    for group, said in (
        ("registers", "no registers token"),
        ("cls+patches", "patches stand alone"),
        ("x", "no x token"),
    ):
        code, text = run(checkpoint("vit"), folder, tmp_path / "r", "--group", group)
        assert (code, said in text) == (2, True), text
    assert not (tmp_path / "r").exists()


def test_several_swaps_are_rows_of_their_own_and_count_as_one_image(checkpoint, folder, tmp_path):
    images, (_, curves), _ = measured(checkpoint("dinov2"), folder, tmp_path / "r", "--swaps", 3)
    once, (_, first), _ = measured(checkpoint("dinov2"), folder, tmp_path / "one")
    assert len(images) == 3 * 42
    swap = images["swap"].to_numpy()
    assert images.filter(swap == 0).drop_columns("swap").equals(once.drop_columns("swap"))
    donors = [images["donor"].to_numpy()[swap == k] for k in range(3)]
    assert not np.array_equal(donors[0], donors[1])
    assert donors[2][:16].tolist() == iv.permute(16, (0, 0, 2)).tolist()
    hits = np.stack([(images["rank_shuffle_03"].to_numpy() == 0)[swap == k] for k in range(3)]).mean(0)
    row = accuracy(curves, "shuffle", 3)
    assert (row["n"], row["value"]) == (42, pytest.approx(hits.mean()))
    half = 1.959964 * hits.std(ddof=1) / 42**0.5
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * half, rel=1e-5)
    for curve in ("intact", "intact_cls_only"):
        assert accuracy(curves, curve) == accuracy(first, curve)


def test_costs_are_paired_and_agreement_is_about_answers(checkpoint, folder, tmp_path):
    images, (_, curves), _ = measured(checkpoint("dinov2"), folder, tmp_path / "r")
    for kind in ("", "_cls_only"):
        hit = lambda name: (images[name].to_numpy() == 0).astype(float)  # noqa: E731
        difference = hit(f"rank_intact{kind}") - hit(f"rank_shuffle{kind}_03")
        row = accuracy(curves, f"cost{kind}", 3)
        assert row["value"] == pytest.approx(difference.mean())
        assert row["ci_high"] - row["value"] == pytest.approx(1.959964 * difference.std(ddof=1) / 42**0.5, rel=1e-5)
        same = images[f"answer_intact{kind}"].to_numpy() == images[f"answer_shuffle{kind}_03"].to_numpy()
        assert accuracy(curves, f"agreement{kind}", 3, "share")["value"] == pytest.approx(same.mean())


@pytest.mark.parametrize("kind", ["mean", "zero", "refit"])
def test_kinds_of_cls_only_are_named_and_are_what_they_say(checkpoint, folder, tmp_path, model, kind):
    images, (report, _), text = measured(checkpoint("dinov2"), folder, tmp_path / "r", "--cls-only", kind)
    assert report.facts.cls_only == kind
    assert f"cls-only: {kind}" in text
    said = {"mean": "others at mean", "zero": "others at zero", "refit": "refitted head"}[kind]
    assert said in (tmp_path / "r" / "figure.html").read_text()
    if kind == "refit":
        return
    m, (train, test) = model("dinov2"), open_data(str(folder))

    def readout(split, places):
        with torch.no_grad(), m.trace(m.pixels([split.image(i) for i in places])):
            found = m.readout.save()
        return found

    features = readout(test, range(len(test)))
    d = m.d_model
    held = readout(train, range(len(train))).mean(0)[d:] if kind == "mean" else torch.zeros(d)
    logits = m.heads[0](torch.cat([features[:, :d], held.expand(len(features), -1)], 1))
    assert images["answer_intact_cls_only"].to_pylist() == logits.argmax(-1).tolist()
    saved = load_file(tmp_path / "r" / "probes.safetensors")
    assert ("readout.mean" in saved) == (kind == "mean")


def test_the_table_of_two_read_outs_fits_80_columns(checkpoint, folder, tmp_path, python):
    """A user's terminal: no column may vanish, the layers' least of all."""
    command = [
        python,
        "-m",
        "clsinterp",
        "run",
        checkpoint("dinov2"),
        "--data",
        folder,
        "--out",
        tmp_path / "r",
    ]
    env = os.environ | {"COLUMNS": "80"}
    done = subprocess.run([*map(str, command), "--workers", "0"], capture_output=True, text=True, check=True, env=env)
    lines = done.stdout.splitlines()
    head = next(line for line in lines if "probe" in line)
    assert head.split() == ["layer", "probe", "output", "cost", "same", "cls-only", "donor", "lens", "ident."]
    rows = [line.split() for line in lines if len(line.split()) == 9 and line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert all(len(line) <= 80 for line in lines if "probe" in line or line.split()[:1] == ["0"])


def test_deits_heads_are_apart_so_nothing_is_held(checkpoint, folder, tmp_path, model):
    images, (report, _), text = measured(checkpoint("deit"), folder, tmp_path / "r")
    assert report.facts.cls_only == "alone"
    assert "cls-only: alone" in text
    m, (_, test) = model("deit"), open_data(str(folder))
    with torch.no_grad(), m.trace(m.pixels([test.image(i) for i in range(42)])):
        features = m.readout.save()
    assert images["answer_intact_cls_only"].to_pylist() == m.heads[0](features[:, : m.d_model]).argmax(-1).tolist()


def test_the_embeddings_alone_can_be_asked_for(checkpoint, folder, tmp_path):
    code, text = run(checkpoint("vit"), folder, tmp_path / "r", "--layers=-1")
    assert code == 0, text
    assert "no verdict, since no layer from 0 on was asked for" in text
    assert json.loads((tmp_path / "r" / "run.json").read_text())["onsets"]["used_from"]["layer"] is None


def test_few_images_get_curves_and_no_verdict(checkpoint, folder, tmp_path):
    _, _, text = measured(checkpoint("vit"), folder, tmp_path / "r")
    assert "no verdict, since 42 test images are too few; at least 100 are needed" in text


def test_penalties_can_be_given_and_an_edge_is_said(checkpoint, folder, tmp_path):
    _, (report, _), text = measured(checkpoint("vit"), folder, tmp_path / "r", "--alphas", "1e3,1e4")
    assert report.identity.request.alphas == (1e3, 1e4)
    assert report.alpha_at_edge
    assert "penalty at an end of the grid" in text
    for given in ("0,1", "2,1", "one"):
        code, text = run(checkpoint("vit"), folder, tmp_path / "no", "--alphas", given)
        assert (code, "--alphas" in text) == (2, True), text
