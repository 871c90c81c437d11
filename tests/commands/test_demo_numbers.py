"""What docs/zoo.md says of the demo, against the table that the demo wrote (docs/demo.md)."""

import re
from pathlib import Path

from clsinterp.commands.demo import HEAD

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "zoo.md").read_text().split())


def table():
    head, _, *rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "demo.md").read_text().splitlines()]
    assert tuple(head) == HEAD
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_the_share_of_answers_that_stay():
    (said,) = re.findall(r"(\d+)% stay what they were after a swap at layer 0", PAGE)
    assert said == f"{100 * float(table()['zoo/dinov2-small']['same answer']):.0f}"


def test_the_layers_and_counts():
    rows = table()
    (images,) = re.findall(r"on (\d+) Fashion-MNIST images at 56 pixels", PAGE)
    assert images == rows["zoo/dinov2-small"]["n"]
    assert rows["zoo/dinov2-small"]["used from"].split()[0] == "11"
    assert "only at the last layer in the DINOv2-small backbone" in PAGE
