"""Runs side by side: the gap against its definition, and the command as a user has it."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import invoke, invoke_flat, run

from clsinterp.runs.compare import SHOWN
from clsinterp.runs.gap import gap

N, CLASSES = 200, 10


def table(probe, shuffle, intact=0.9, n=N):
    """A run's per-image table with exactly these accuracies; donors have other labels, answers are right or the next class."""
    label = np.arange(n) % CLASSES
    donor = (np.arange(n) + 1) % n
    hit = lambda share: np.arange(n) < round(share * n)  # noqa: E731
    answer = np.where(hit(intact), label, (label + 1) % CLASSES)
    columns = {"index": np.arange(n), "label": label, "donor": donor, "answer_intact": answer}
    columns["rank_intact"] = np.where(answer == label, 0, 1)
    for i, share in enumerate(probe):
        columns[f"rank_probe_{i:02d}"] = np.where(hit(share), 0, 3)
    for i, share in enumerate(shuffle):
        columns[f"rank_shuffle_{i:02d}"] = np.where(hit(share), 0, 3)
    return pa.table(columns)


def test_the_gap_is_the_area_between_the_curves_on_the_scales_of_the_verdicts():
    probe, shuffle = [0.5, 0.7, 0.9, 0.9], [0.9, 0.9, 0.5, 0.1]
    images = table(probe, shuffle)
    rows = images.to_pylist()
    floor = np.mean([rows[r["donor"]]["answer_intact"] == r["label"] for r in rows])
    read = [(p - 0.1) / (0.9 - 0.1) for p in probe]
    used = [(0.9 - s) / (0.9 - floor) for s in shuffle]
    found = gap(images, range(CLASSES))
    assert found.value == pytest.approx(np.mean(np.subtract(read, used)))
    assert found.ci[0] < found.value < found.ci[1]


def test_a_model_that_uses_what_can_be_read_has_no_gap_and_one_that_waits_has_a_wide_one():
    assert gap(table([0.9] * 4, [0.0] * 4), range(CLASSES)).value == pytest.approx(0, abs=0.02)
    assert gap(table([0.9] * 4, [0.9, 0.9, 0.9, 0.0]), range(CLASSES)).value == pytest.approx(0.75, abs=0.01)


def test_there_is_no_gap_where_there_is_no_scale():
    found = gap(table([0.1] * 4, [0.9] * 4), range(CLASSES))
    assert found.value is None
    assert "best probe" in found.reason


@pytest.fixture(scope="module")
def runs(checkpoint, folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    for family in ("vit", "clip"):
        code, text = run(checkpoint(family), folder, root / family)
        assert code == 0, text
    return root


def test_the_command_writes_a_row_per_run(runs, tmp_path):
    code, text = invoke("compare", runs / "vit", runs / "clip", "--out", tmp_path / "out")
    assert code == 0, text
    rows = pq.read_table(tmp_path / "out" / "compare.parquet").to_pylist()
    assert {row["run"] for row in rows} == {"vit", "clip"}
    for row in rows:
        images = pq.read_table(runs / row["run"] / "images.parquet")
        assert row["intact"] == pytest.approx(np.mean(images["rank_intact"].to_numpy() == 0))
        assert row["same_data"]
    lines = (tmp_path / "out" / "compare.md").read_text().splitlines()
    assert lines[0].strip("| ").split(" | ") == list(SHOWN.values())
    assert "too few" in "\n".join(lines)  # tiny runs have no verdict, and the table says why
    assert "Plotly.newPlot(" in (tmp_path / "out" / "compare.html").read_text()


def test_other_data_is_refused_and_marked_when_forced(runs, checkpoint, folder, tmp_path):
    assert run(checkpoint("vit"), folder, tmp_path / "fewer", "--limit", 20, "--mode", "cross_label")[0] == 0
    both = (runs / "vit", tmp_path / "fewer")
    code, text = invoke_flat("compare", *both, "--out", tmp_path / "out")
    assert code == 2
    assert "other test images" in text
    assert "--force" in text
    assert not (tmp_path / "out").exists()
    assert invoke("compare", *both, "--out", tmp_path / "out", "--force")[0] == 0
    written = (tmp_path / "out" / "compare.md").read_text()
    assert ", cross_label (!)" in written
    assert "not comparable" in written


def test_one_run_the_same_twice_and_none_are_refused(runs, tmp_path):
    for given, words in (
        ((runs / "vit",), "at least two"),
        ((runs / "vit", runs / "vit"), "twice"),
        ((runs / "vit", tmp_path), "not a finished run"),
    ):
        code, text = invoke_flat("compare", *given, "--out", tmp_path / "out")
        assert (code, words in text) == (2, True), text
    whole = tmp_path / "lacking"
    shutil.copytree(runs / "vit", whole)
    (whole / "images.parquet").unlink()
    code, text = invoke_flat("compare", runs / "vit", whole, "--out", tmp_path / "out")
    assert (code, "images.parquet" in text) == (2, True), text
