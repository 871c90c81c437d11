"""What the README says of the real backbone, against the table of the run; and the head that ships for it."""

import csv
import re
from pathlib import Path

from safetensors import safe_open

from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.shipped_head import shipped_head

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def points(name: str = "photos-224") -> dict[tuple[str, str, str], float]:
    with (ROOT / "docs" / "evidence" / f"{name}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not row["probed_layer"]]
    return {(row["curve"], row["layer"], row["metric"]): float(row["value"]) for row in rows}


def test_the_readmes_first_table_is_the_runs():
    found = points()
    head = re.search(r"^\| \| (layer .*) \|$", README, re.M)[1]
    layers = [cell.removeprefix("layer ") for cell in head.split(" | ")]
    for name, curve in (("probe on the CLS token", "probe"), (r"output, CLS swapped[^|]*", "shuffle")):
        cells = re.search(rf"^\| {name} \| (.*) \|$", README, re.M)[1].split(" | ")
        assert cells == [f"{found[curve, layer, 'accuracy']:.3f}".lstrip("0") for layer in layers]
    (intact,) = re.findall(r"untouched (\.\d+)", README)
    assert intact == f"{found['intact', '', 'accuracy']:.3f}".lstrip("0")
    (same,) = re.findall(r"After a swap at layer 0, ([\d.]+)% of the answers stay", README)
    assert same == f"{100 * found['agreement', '0', 'share']:.1f}"


def test_the_head_that_ships_is_one_of_that_backbone():
    path = shipped_head("zoo/dinov2-small")
    head = FittedHead.load(path)
    assert (head.source, head.image_size, head.readouts) == ("zoo/dinov2-small", 224, ("cls", "patch_mean"))
    assert head.weights[0].shape == (len(head.class_names), 2 * 384)
    assert all(name in (path.parent / "README.md").read_text() for name in head.class_names)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"weight.0", "bias.0"}
