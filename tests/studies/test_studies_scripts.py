"""Every script through its command line on tiny checkpoints; tables against independent computations."""

import ast
import json
import math
import re
import sys

import plotly.graph_objects as go
import pyarrow.parquet as pq
import pytest
import study_scripts
import tiny
import torch
from study_scripts import EXPERIMENTS, run, script

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.cli import app
from clsinterp.commands.experiments import STUDIES
from clsinterp.data.batches import batches
from clsinterp.data.sources import open_data
from clsinterp.interventions import donors
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.run import run as run_note
from clsinterp.studies.drawn import DRAWN
from clsinterp.studies.setup import Setup
from clsinterp.studies.shown import Recorded

LIMIT = 24


@pytest.fixture(scope="module")
def done(checkpoint, folder, tmp_path_factory):
    """(study, families, more words) -> run folder, made on first use."""
    root, made = tmp_path_factory.mktemp("studies"), {}

    def get(name, *families, words=()):
        key = (name, families, words)
        if key not in made:
            models = [checkpoint(family) for family in families]
            data = ("--data", folder, "--limit", LIMIT)
            made[key] = run(name, root / "-".join([name, *families]), *models, *data, *words)
        return made[key]

    return get


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def cell(table, **where):
    (found,) = [r for r in table if all(r[k] == v for k, v in where.items())]
    return found["value"]


def test_the_catalog_has_every_script_with_the_first_line_of_its_docstring():
    assert set(STUDIES) == set(study_scripts.names())
    for name, line in STUDIES.items():
        text = (EXPERIMENTS / f"{name}.py").read_text()
        doc = ast.get_docstring(ast.parse(text))
        assert doc.splitlines()[0] == line
        assert f"python experiments/{name}.py" in doc
        assert len(text.splitlines()) <= 120, name
        assert f"experiments/{name}.py" in (EXPERIMENTS / "README.md").read_text()
        assert f"figures/{name}.svg" in (EXPERIMENTS / "README.md").read_text()


def test_clsinterp_experiments_lists_them():
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["experiments"])
    assert result.exit_code == 0
    assert all(f"experiments/{name}.py" in result.output for name in STUDIES)


def test_note_has_the_numbers_of_clsinterp_run(done, checkpoint, folder, tmp_path):
    out = done("note", "deit")
    request = Request(model=str(checkpoint("deit")), data=str(folder), limit=LIMIT, batch_size=16)
    reference = pq.read_table(
        run_note(request, tmp_path / "run", resources=Resources(workers=0)) / "curves.parquet"
    ).to_pylist()
    keys = ("curve", "layer", "probed_layer", "metric", "value", "ci_low", "ci_high", "n")
    ours, theirs = (sorted(str([r[k] for k in keys]) for r in table) for table in (rows(out, "curves"), reference))
    assert ours == theirs


def test_a_run_folder_says_what_was_run_and_opens_offline(done):
    out = done("note", "deit")
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["identity"]["study"] == "note"
    assert manifest["models"][0]["family"] == "deit"
    assert manifest["models"][0]["test"]["n"] == LIMIT
    assert "plotly" in (out / "figure.html").read_text()
    assert (out / "summary.md").read_text().startswith("| layer | probe |")
    assert rows(out, "summary")[0]["layer"] == 0
    json.loads((out / "figure.json").read_text())


def plain_accuracy(setup, layer, change):
    """Accuracy with CLS tokens changed at one layer, by plain torch."""
    hits = []
    for batch in setup.batches(setup.test):
        out = plain_forward(setup.model, batch.pixels, layer, 0, lambda t, b=batch: change(t, b))[2]
        hits.append(out.argmax(-1) == batch.targets)
    return float(torch.cat(hits).double().mean())


@pytest.fixture(scope="module")
def setup(checkpoint, folder):
    return lambda family: Setup.open(str(checkpoint(family)), str(folder), limit=LIMIT, batch_size=16, workers=0)


@torch.no_grad()
def test_ablations_equal_one_forward_each(done, setup):
    table = rows(done("ablations", "dinov2-registers"), "ablations")
    s = setup("dinov2-registers")
    swap = lambda mode: lambda t, b: t[donors(mode, b.labels, (0, b.number))]  # noqa: E731
    ways = {"mean": lambda t, b: t.mean(0, keepdim=True).expand_as(t), "zero": lambda t, b: t * 0,
            "permute": swap("permute"), "cross_label": swap("cross_label")}  # fmt: skip
    for name, change in ways.items():
        for layer in (0, 3):
            expected = plain_accuracy(s, layer, change)
            assert cell(table, group="cls", curve=name, layer=layer) == pytest.approx(expected), (name, layer)
    assert {r["group"] for r in table} == {None, "cls", "registers"}
    assert {r["curve"] for r in table} == {"intact", "permute", "derange", "cross_label", "mean", "zero", "noise"}


@torch.no_grad()
def test_donors_count_whom_the_output_names(done, setup):
    out = done("donors", "vit", "clip", words=("--mode", "cross_label"))
    table, s = [r for r in rows(out, "donors") if r["model"] == "vit"], setup("vit")
    for layer in (0, 2, 3):
        host, donor, answers = [], [], []
        for b in s.batches(s.test):
            index = donors("cross_label", b.labels, (0, b.number))
            said = plain_forward(s.model, b.pixels, layer, 0, lambda t, i=index: t[i])[2].argmax(-1)
            host.append(said == b.targets)
            donor.append(said == b.targets[index])
            answers += zip(b.targets.tolist(), b.targets[index].tolist(), said.tolist(), strict=True)
        for curve, hits in (("host", host), ("use", donor)):
            expected = float(torch.cat(hits).double().mean())
            assert cell(table, curve=curve, layer=layer, readout="output", pairs=None) == pytest.approx(expected)
        # by chance: the share of donors of images of the same label that the answer would have named as well
        chance = sum(
            sum(d == said for h, d, _ in answers if h == own) / sum(h == own for h, _, _ in answers) for own, _, said in answers
        ) / len(answers)  # fmt: skip
        assert cell(table, curve="use by chance", layer=layer) == pytest.approx(chance)
    # availability is the probe's accuracy on the tokens handed over; donors are a permutation here, so on all of them
    probes = {r["layer"]: r["value"] for r in rows(done("note", "vit"), "curves")
              if r["curve"] == "probe" and r["metric"] == "accuracy"}  # fmt: skip
    for layer in range(4):
        assert cell(table, curve="availability", layer=layer) == pytest.approx(probes[layer])
    above = []
    for curve, readout in (("availability", "probe"), ("use", "output")):
        hits = [cell(table, curve=curve, layer=i, readout=readout, pairs=None) for i in range(4)]
        chance = [cell(table, curve=f"{curve} by chance", layer=i) for i in range(4)]
        above.append([(h - c) / (1 - c) for h, c in zip(hits, chance, strict=True)])
    apart = [a - u for a, u in zip(*above, strict=True)]
    gap = (sum(apart) - (apart[0] + apart[3]) / 2) / 3
    first = rows(out, "summary")[0]
    assert first["gap [95%]"].startswith(f"{gap:.2f} [")
    assert [r["family"] for r in rows(out, "summary")] == ["vit", "clip"]
    counted = sum(r["n"] for r in table if r["curve"] == "use" and r["layer"] == 0 and r["pairs"] is not None)
    assert counted == LIMIT


@torch.no_grad()
def test_donors_reads_every_read_out(done, setup):
    table, s = rows(done("donors", "dinov2"), "donors"), setup("dinov2")
    assert {r["readout"] for r in table} == {"output", "cls alone", "patch_mean alone", "probe"}
    own, swapped = [], []
    mean = torch.cat([plain_forward(s.model, b.pixels)[1] for b in s.batches(s.train)]).mean(0)
    for b in s.batches(s.test):
        x = plain_forward(s.model, b.pixels)[1]
        index = donors("cross_label", b.labels, (0, b.number))
        x[:, tiny.WIDTH :] = mean[tiny.WIDTH :]
        # after the last block the CLS read-out sees the donor's token and nothing else: the donor's own run
        swapped.append(s.model.heads[0](x).argmax(-1)[index] == b.targets[index])
        y = plain_forward(s.model, b.pixels)[1]
        y[:, : tiny.WIDTH] = mean[: tiny.WIDTH]
        own.append(s.model.heads[0](y).argmax(-1) == b.targets)  # and the patch mean has not seen the swap at all
    for readout, curve, hits in (("cls alone", "use", swapped), ("patch_mean alone", "host", own)):
        expected = float(torch.cat(hits).double().mean())
        assert cell(table, curve=curve, readout=readout, layer=3, pairs=None) == pytest.approx(expected)


@torch.no_grad()
def test_restoration_has_the_runs_values_and_shuffles_at_several_layers(done, setup):
    table, s = rows(done("restoration", "vit"), "restoration"), setup("vit")
    probes = {r["layer"]: r["value"] for r in rows(done("note", "vit"), "curves")
              if r["curve"] == "probe" and r["metric"] == "accuracy"}  # fmt: skip
    for layer in range(4):
        assert cell(table, curve="no shuffle", probed_layer=layer) == pytest.approx(probes[layer])
    kinds = {"same probe", "refitted probe"}
    for kind in kinds:
        pairs = {(r["layer"], r["probed_layer"]) for r in table if r["curve"] == kind}
        assert pairs == {(i, j) for i in range(4) for j in range(i, 4)}
    module = script("restoration")
    blocks = s.model._module.get_submodule(s.model.family.blocks)
    hits = []
    for b in s.batches(s.test):
        edit = module.shuffled(s, b, range(0, 3), 1)
        handles = [blocks[i].register_forward_hook(lambda _m, _a, out, f=f: f(out.clone())) for i, f in edit.at.items()]
        hits.append(s.model._module(b.pixels).logits.argmax(-1) == b.targets)
        for handle in handles:
            handle.remove()
    expected = float(torch.cat(hits).double().mean())
    assert cell(table, curve="at every layer up to l", layer=2) == pytest.approx(expected)
    assert cell(table, curve="at the 3 layers up to l", layer=2) == pytest.approx(expected)


def test_rereading_has_the_runs_values(done, checkpoint, folder, tmp_path):
    table = rows(done("rereading", "deit"), "rereading")
    request = Request(str(checkpoint("deit")), str(folder), limit=LIMIT, batch_size=16, also=("rereading",))
    curves = rows(run_note(request, tmp_path / "run", resources=Resources(workers=0)), "curves")
    expected = {(r["curve"], r["metric"], r["layer"]): r for r in curves if r["curve"].startswith("knock")}
    expected = {key: r for key, r in expected.items() if key[1] != "top5"}
    found = {(r["curve"], r["metric"], r["layer"]): r for r in table if r["curve"].startswith("knock")}
    assert set(found) == set(expected)
    for key, row in expected.items():
        assert found[key]["value"] == pytest.approx(row["value"])
    assert {r["layer"] for r in table if r["curve"] == "knock_at_cls_only"} == {0, 1}


def test_readouts_average_and_compare(done):
    out = done("readouts", "clip", words=("--epochs", "2", "--samples", "5"))
    table = rows(out, "readouts")
    for kind in ("intact", "constant", "learned constant", "gaussian", "generator", "augment"):
        # the average of one read-out is the last read-out
        last = cell(table, curve=kind, layer=3)
        assert cell(table, curve=f"average, {kind}", averaged=1) == pytest.approx(last)
    pairs = rows(out, "agreement")
    assert {(r["layer"], r["other"]) for r in pairs} == {(i, j) for i in range(4) for j in range(i + 1, 4)}
    for r in pairs:
        assert r["both right"] + r["both wrong"] + r["one right"] == pytest.approx(1)
        right = cell(table, curve=r["kind"], layer=r["layer"])
        assert r["both right"] <= right + 1e-9


def test_readouts_count_the_answers_of_samples(done):
    table = rows(done("readouts", "clip", words=("--epochs", "2", "--samples", "5")), "readouts")
    for layer in range(4):
        assert 0 <= cell(table, curve="agreement", layer=layer) <= 1
        assert 0 <= cell(table, curve="entropy", layer=layer) <= math.log(5)  # of 5 samples
        bins = [r for r in table if r["curve"] == "reliability, counts" and r["layer"] == layer]
        assert sum(r["n"] for r in bins) == LIMIT
        error = sum(abs(r["x"] - r["value"]) * r["n"] for r in bins) / LIMIT
        assert cell(table, curve="ece, counts", layer=layer) == pytest.approx(error)
    assert not [r for r in table if r["curve"].startswith("published")]


def test_the_notes_numbers_stand_beside_those_of_its_model(checkpoint, folder, tmp_path, monkeypatch):
    from clsinterp.figures.note import published_curves

    known = published_curves()
    his = {"layers": [2, 3], "null": [0.1, 0.2], "replace": [0.3, 0.4], "augment": [0.5, 0.6]}
    shown = {"checkpoints": {**known["checkpoints"], "vit": "vit"}, "follow_up": his}
    monkeypatch.setattr(script("readouts"), "published_curves", lambda: shown)
    words = ("--data", folder, "--limit", 16, "--epochs", 1, "--samples", 2)
    out = run("readouts", tmp_path / "run", checkpoint("vit"), *words)
    table = rows(out, "readouts")
    found = {(r["curve"], r["layer"]): r["value"] for r in table if r["curve"].startswith("published")}
    assert found == {
        (f"published, {kind}", layer): value
        for kind, name in (("intact", "null"), ("generator", "replace"), ("augment", "augment"))
        for layer, value in zip(his["layers"], his[name], strict=True)
    }
    assert "augment, in the note" in (out / "figure.json").read_text()


def test_every_study_takes_a_head_and_a_label_map(checkpoint, folder, tmp_path):
    vit, data = checkpoint("vit"), ("--data", folder, "--limit", 16)
    fitted = run("ablations", tmp_path / "fit", vit, *data, "--head", "fit")
    assert json.loads((fitted / "run.json").read_text())["models"][0]["head"] == "fit"
    turned = {f"class_{k}": (k + 1) % tiny.CLASSES for k in range(tiny.CLASSES)}
    file = tmp_path / "map.json"
    file.write_text(json.dumps(turned))
    mapped = run("ablations", tmp_path / "map", vit, *data, "--label-map", file)
    assert json.loads((mapped / "run.json").read_text())["models"][0]["head"] == "map"
    s = Setup.open(str(vit), str(folder), limit=16, batch_size=16, workers=0, label_map=turned)
    hits = [s.model(b.pixels).logits.argmax(-1) == (b.labels + 1) % tiny.CLASSES for b in s.batches(s.test)]
    expected = float(torch.cat(hits).double().mean())
    assert cell(rows(mapped, "ablations"), curve="intact") == pytest.approx(expected)
    run("causality", tmp_path / "count", vit, *data, "--all-pairs", "--head", "fit")


def test_class_space_measures_trained_and_twin(done):
    out = done("class_space", "beit", words=("--perturbed", LIMIT))
    table = rows(out, "class_space")
    own = {"lens", "gradient", "probes"}
    orders = own | {f"{order}, another image's" for order in own} | {"chance", "chance in one piece"}
    assert {r["order"] for r in table if r["share"] is not None} == orders
    # after the last block the class is on top of the CLS token where the output is right
    assert cell(table, curve="identifiability rate, cls", layer=3, control="trained") == pytest.approx(
        cell(table, curve="output", order="intact", share=None)
    )
    for control in ("trained", "random twin"):
        for part in ("cls", "patches"):
            for layer in range(4):
                value = cell(table, curve=f"identifiability, {part}", layer=layer, control=control)
                assert 1 / tiny.CLASSES <= value <= 1
    kept = {(r["curve"], r["order"], r["share"]): r["value"] for r in table if r["share"] is not None}
    # with every patch kept the order does not matter
    assert len({v for (_, _, share), v in kept.items() if share == 1.0}) == 1
    assert kept["most relevant kept", "lens", 1.0] == pytest.approx(
        cell(table, curve="output", order="intact", share=None)
    )


def test_class_space_without_a_cls_token_reads_the_patches(done):
    table = rows(done("class_space", "siglip", words=("--tokens", "2", "--perturbed", "8")), "class_space")
    assert {r["curve"] for r in table if r["curve"].startswith("identifiability,")} == {"identifiability, patches"}
    assert {r["order"] for r in table if r["share"] is not None} == {
        "gradient", "gradient, another image's", "chance", "chance in one piece"}  # fmt: skip


def test_class_space_reads_a_checkpoint_without_a_classifier_through_a_fitted_one(done):
    out = done("class_space", "dinov3", words=("--tokens", "2", "--perturbed", "8"))
    assert json.loads((out / "run.json").read_text())["models"][0]["head"] == "fit"
    assert all(r["value"] == r["value"] for r in rows(out, "class_space"))


def test_frequency_of_everything_is_the_intact_image(done):
    table = rows(done("frequency", "deit", words=("--draws", "1")), "frequency")
    probes = {r["layer"]: r["value"] for r in rows(done("note", "deit"), "curves")
              if r["curve"] == "probe" and r["metric"] == "accuracy"}  # fmt: skip
    for layer in range(4):
        assert cell(table, measure="similarity", kind="intact", group="cls", layer=layer) == pytest.approx(1)
        assert cell(table, measure="probe", kind="intact", group="cls", layer=layer) == pytest.approx(probes[layer])
    low = [
        cell(table, measure="similarity", kind="low-pass", cutoff=c, group="patches", layer=0) for c in (0.125, 0.75)
    ]
    assert low[0] < low[1] < 1
    assert {(r["kind"], r["embedding"]) for r in table if r["measure"] == "refitted head"} == {
        (k, e) for k in ("as it is", "inverted", "blurred", "noised") for e in ("learned", "random")
    }


@torch.no_grad()
def test_causality_swaps_within_pairs(done, checkpoint, folder):
    from clsinterp.studies.causality.setup import CountingSetup, partner

    out = done("causality", "vit", words=("--all-pairs",))
    table = rows(out, "causality")
    s = CountingSetup.open(str(checkpoint("vit")), str(folder), limit=LIMIT, batch_size=16, workers=0)
    for group, layer in (("CLS", 3), ("removed object", 0)):
        turned = []
        for b in s.batches(s.test):
            index, mask = partner(len(b)), s.masks(s.test_pairs, b)[group]
            states = plain_forward(s.model, b.pixels)[0][layer]
            donor = states[index]
            where = torch.arange(10).tolist()
            mixed = torch.where(mask.unsqueeze(-1), donor, states)
            readout = plain_forward(s.model, b.pixels, layer, where, lambda t, h=mixed: h)[1]
            turned.append(s.head(readout).argmax(-1) == b.targets[index])
        expected = float(torch.cat(turned).double().mean())
        found = cell(table, curve="turns to the donor's count", group=group, layer=layer, direction="both")
        assert found == pytest.approx(expected)
    # a ViT reads its CLS token alone: swapping it after the last block is the donor's run, swapping patches nothing
    assert cell(table, curve="logit difference", group="CLS", layer=3, direction="both") == pytest.approx(1, abs=1e-4)
    assert cell(table, curve="logit difference", group="all patches", layer=3, direction="both") == pytest.approx(
        0, abs=1e-4
    )
    assert {r["direction"] for r in table} == {None, "both", "object removed", "object added"}
    sampled = {r["direction"]: r["n"] for r in table if r["curve"] == "turns to the donor's count"}
    assert set(sampled.values()) == {len(s.test) // 2}  # pairs: their two directions are no two samples


def test_head_patching_on_the_common_command_line(checkpoint, folder, tmp_path, setup):
    s = setup("vit")
    with torch.no_grad():
        said = torch.cat([s.model(b.pixels).logits.argmax(-1) for b in s.batches(s.test)])
    right = [label for label, answer in zip(s.test.labels, said.tolist(), strict=True) if label == answer]
    classes = [s.test.class_names[label] for label in dict.fromkeys(right)][:2]
    if len(classes) < 2:  # a random model gets few right: then the script must say so
        with pytest.raises(SystemExit, match="2"):
            run(
                "head_patching",
                tmp_path / "h",
                checkpoint("vit"),
                "--data",
                folder,
                "--limit",
                LIMIT,
                "--classes",
                "class_0,class_1",
            )
        return
    words = ("--data", folder, "--limit", LIMIT, "--classes", ",".join(classes), "--pairs", 1)
    out = run("head_patching", tmp_path / "h", checkpoint("vit"), *words)
    table = rows(out, "head_patching")
    assert len([r for r in table if r["curve"] == "heads"]) == tiny.LAYERS * tiny.HEADS
    assert {r["place"] for r in table if r["token"] == 0} == {"CLS"}


@pytest.mark.parametrize(
    "name", ["note", "restoration", "readouts", "frequency", "ablations", "donors", "erasure", "subspace", "rereading"]
)
def test_a_model_without_a_cls_token_is_refused_in_a_sentence(name, checkpoint, folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(name, tmp_path / "x", checkpoint("siglip"), "--data", folder, "--limit", 16)
    assert "siglip model has n" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_requests_that_cannot_be_done_end_with_2(checkpoint, folder, tmp_path, capsys):
    vit = checkpoint("vit")
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").write_text("x")
    for words, said in (
        ((tmp_path / "none", "--data", folder), "none"),
        ((vit, "--data", tmp_path / "nowhere"), "nowhere"),
        ((vit, "--data", folder, "--limit", "0"), "--limit"),
        ((vit, "--data", folder, "--batch-size", "1"), "at least 2"),
    ):
        with pytest.raises(SystemExit, match="2"):
            script("note").main([*map(str, words), "--out", str(tmp_path / "y"), "--workers", "0"])
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit, match="2"):
        run("note", used, vit, "--data", folder)
    with pytest.raises(SystemExit, match="2"):
        run("donors", tmp_path / "z", vit, vit, "--data", folder, "--limit", 16)
    assert "two models are called" in " ".join(capsys.readouterr().err.split())


def gallery(monkeypatch, out, *words):
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--runs", str(out), "--out", str(out), *map(str, words)])
    script("gallery").main()


def test_gallery_writes_what_runs_found_and_draws_it_again_from_the_tables(done, tmp_path, monkeypatch):
    folders = {"note": done("note", "deit"), "ablations": done("ablations", "dinov2-registers")}
    for name, folder in folders.items():
        (tmp_path / name).symlink_to(folder)
    blocks = "".join(
        f"<!-- finding: {name} -->\n{old}<!-- end -->\n" for name, old in zip(folders, ("", "old\n"), strict=True)
    )
    (tmp_path / "README.md").write_text(f"before\n\n{blocks}\nafter\n")
    gallery(monkeypatch, tmp_path, "--only", "note,ablations")
    readme = (tmp_path / "README.md").read_text()
    probe = cell([r for r in rows(folders["note"], "curves") if r["metric"] == "accuracy"], curve="probe", layer=3)
    assert re.match(
        rf"before\n\n<!-- finding: note -->\nOn `deit` .*{probe:.2f}.*\n<!-- end -->\n.*\nafter\n$", readme, re.DOTALL
    )
    kept = pq.read_table(tmp_path / "tables" / "note.parquet")
    assert kept.equals(pq.read_table(folders["note"] / "curves.parquet"))
    svg = (tmp_path / "figures" / "note.svg").read_text()
    assert svg.startswith("<svg")
    assert len(svg) < 250_000
    assert (tmp_path / "tables" / "note.md").read_text() == (folders["note"] / "summary.md").read_text()
    for name in folders:  # without the runs, figures and findings come back from the tables
        (tmp_path / name).unlink()
    (tmp_path / "figures" / "ablations.svg").unlink()
    (tmp_path / "README.md").write_text(f"before\n\n{blocks}\nafter\n")
    gallery(monkeypatch, tmp_path, "--only", "note,ablations", "--figures-only")
    assert (tmp_path / "README.md").read_text() == readme
    assert "permute" in (tmp_path / "figures" / "ablations.svg").read_text()


def test_the_second_part_of_the_gallery_fits_one_head_and_says_how_much_was_measured(
    checkpoint, folder, tmp_path, monkeypatch, quick_processes
):
    module = script("gallery")
    monkeypatch.setattr(module, "PHOTOS", {"ablations": "--train-per-class 2 --test-per-class 4"})
    monkeypatch.setattr(module, "SIZE", 48)
    (tmp_path / "README.md").write_text("<!-- finding: ablations, photos -->\nold\n<!-- end -->\n")
    gallery(monkeypatch, tmp_path, "--photos", folder, "--models", checkpoint("dinov2"), "--only", "ablations")
    said = f"Measured on {4 * tiny.CLASSES} test images of 48 pixels"
    assert said in " ".join((tmp_path / "README.md").read_text().split())
    assert said in (tmp_path / "tables" / "photos" / "ablations.md").read_text()
    assert (tmp_path / "figures" / "photos" / "ablations.svg").exists()
    (model,) = json.loads((tmp_path / "photos" / "ablations" / "run.json").read_text())["models"]
    assert model["head"] == "name"  # the saved head's classes are the data's
    assert (tmp_path / "photos" / "head.safetensors").exists()


def test_a_control_of_the_gallery_is_the_zoo_with_one_thing_changed(checkpoint, tmp_path, monkeypatch, quick_processes):
    module = script("gallery")
    monkeypatch.setattr(module, "CONTROLS", {"ablations": "--head fit"})
    (tmp_path / "README.md").write_text("<!-- finding: ablations, control -->\n<!-- end -->\n")
    gallery(monkeypatch, tmp_path, "--controls", "--models", checkpoint("vit"), "--limit", 16)
    (model,) = json.loads((tmp_path / "control" / "ablations" / "run.json").read_text())["models"]
    assert model["head"] == "fit"
    assert (tmp_path / "figures" / "control" / "ablations.svg").exists()
    assert "On `vit`" in (tmp_path / "README.md").read_text()


def test_a_figure_that_shows_an_image_does_not_get_into_the_gallery(tmp_path):
    module = script("gallery")
    figure = go.Figure(go.Image(z=[[[0, 0, 0]]]))
    with pytest.raises(SystemExit, match="shows an image"):
        module.draw(module.zoo(tmp_path, None), "note", tmp_path, figure)


@pytest.mark.parametrize(
    ("name", "families", "words"),
    [
        ("restoration", ("deit",), ()),
        ("readouts", ("clip",), ("--epochs", "2", "--samples", "5")),
        ("class_space", ("beit",), ("--perturbed", LIMIT)),
        ("causality", ("vit",), ("--all-pairs",)),
        ("frequency", ("deit",), ("--draws", "1")),
        ("ablations", ("dinov2-registers",), ()),
        ("donors", ("vit", "clip"), ("--mode", "cross_label")),
        ("erasure", ("vit",), ()),
        ("subspace", ("vit",), ("--draws", "1")),
    ],
)
def test_a_figure_drawn_again_from_the_tables_is_the_one_that_the_study_drew(name, families, words, done):
    out = done(name, *families, words=words)
    models = [Recorded.read(model) for model in json.loads((out / "run.json").read_text())["models"]]
    tables = {path.stem: pq.read_table(path) for path in out.glob("*.parquet") if path.stem != "summary"}
    again = json.loads(DRAWN[name](tables, models).to_json())
    assert again == json.loads((out / "figure.json").read_text())


def test_the_counting_recipe_trains_exports_and_counts(tmp_path, monkeypatch):
    sys.path.insert(0, str(EXPERIMENTS / "zoo"))
    try:
        recipe = __import__("train_counting")
    finally:
        sys.path.pop(0)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(60, 256, (40, 28, 28), generator=draw, dtype=torch.uint8)
    monkeypatch.setattr(recipe.common, "load", lambda args: (images, None, images, None))
    words = ["--out", tmp_path / "counting", "--epochs", 1, "--steps", 2, "--batch-size", 16, "--evaluate", 30]
    monkeypatch.setattr(sys, "argv", ["train_counting.py", *map(str, words)])
    recipe.main()
    facts = json.loads((tmp_path / "counting" / "facts.json").read_text())
    assert 0 <= facts["test_accuracy"] <= 1
    assert not math.isnan(facts["pairs_right"])
    assert "experiments/causality.py" in (tmp_path / "counting" / "README.md").read_text()
    from clsinterp import VisionModel

    model = VisionModel(str(tmp_path / "counting"))
    assert model.class_names == ["1", "2", "3", "4", "5", "6"]
    # what the recipe feeds is what the shipped image processor makes of the pictures
    from clsinterp.studies.causality.images import make_pairs, pictures

    pairs = make_pairs(recipe.shrunk(images), 4, 0)
    torch.testing.assert_close(model.pixels(pictures(pairs.clean)), recipe.pixels(pairs.clean), rtol=0, atol=1e-5)


def test_loader_and_setup_see_the_same_images(setup, folder):
    s = setup("vit")
    split = open_data(str(folder), limit=LIMIT)[1]
    direct = torch.cat(list(batches(split, s.model.image_processor, 16, workers=0)))
    ours = torch.cat([b.pixels for b in s.batches(s.test)])
    assert torch.equal(direct, ours)
    assert torch.cat([b.labels for b in s.batches(s.test)]).tolist() == split.labels


def test_a_study_script_tells_its_own_options(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SystemExit) as ended:
        script("ablations").main(["--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "--overwrite, or another --out." in capsys.readouterr().err
