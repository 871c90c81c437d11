"""The README is short, and its numbers are those of the headline run's table (docs/evidence/photos-224.csv)."""

import re
from pathlib import Path

import pyarrow.csv
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
WORDS = 1600


@pytest.fixture(scope="module")
def points():
    """(curve, layer, metric) -> value; without the curves that have two layers."""
    rows = pyarrow.csv.read_csv(ROOT / "docs" / "evidence" / "photos-224.csv").to_pylist()
    return {
        (r["curve"], r["layer"], r["metric"]): r["value"] for r in rows if r["probed_layer"] in (None, r["layer"], "")
    } | {("n", None, None): {r["n"] for r in rows if r["curve"] == "shuffle"}}


def test_it_is_short():
    assert len(README.split()) <= WORDS


def test_the_table_under_the_picture(points):
    (head,) = re.findall(r"^\| \| (layer .*) \|$", README, re.MULTILINE)
    layers = [int(cell.removeprefix("layer ")) for cell in head.split(" | ")]
    assert layers == [0, 10, 11]
    rows = {"probe on the CLS token": "probe", "output, CLS swapped": "shuffle"}
    for name, curve in rows.items():
        (cells,) = re.findall(rf"^\| {name}[^|]* \|(.*)\|$", README, re.MULTILINE)
        said = [cell.strip() for cell in cells.split("|")]
        values = [f"{points[curve, layer, 'accuracy']:.3f}".removeprefix("0") for layer in layers]
        assert said == values
    (intact,) = re.findall(r"untouched (\.\d+)", README)
    assert intact == f"{points['intact', None, 'accuracy']:.3f}".removeprefix("0")


def test_the_sentences_under_the_picture(points):
    (said,) = re.findall(r"After a swap at layer 0, ([\d.]+)% of the answers stay what they were", README)
    assert float(said) == pytest.approx(100 * points["agreement", 0, "share"], abs=0.051)
    (n,) = re.findall(r"and ([\d,]+) test photos", " ".join(README.split()))
    assert points["n", None, None] == {int(n.replace(",", ""))}
