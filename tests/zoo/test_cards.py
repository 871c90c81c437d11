"""The cards of the zoo and the numbers of its page (docs/zoo.md), against what was measured (``facts.json``)."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "clsinterp" / "zoo"
FIVE = ("vit", "deit", "beit", "dinov2", "clip")


@pytest.fixture(scope="module")
def cards():
    """The scripts card.py and says.py as modules."""
    sys.path.insert(0, str(ROOT / "experiments" / "zoo"))
    try:
        return __import__("card"), __import__("says")
    finally:
        sys.path.pop(0)


def facts(name):
    return json.loads((ZOO / name / "facts.json").read_text())


@pytest.mark.parametrize("name", FIVE)
def test_a_card_says_what_its_facts_say(cards, name):
    assert (ZOO / name / "README.md").read_text() == cards[0].card(name, facts(name))
    assert facts(name)["measured"]["intact"]["intact"] == pytest.approx(facts(name)["test_accuracy"], abs=2e-4)


def test_the_page_gives_each_models_accuracy_and_the_layer_it_is_used_from():
    text = " ".join((ROOT / "docs" / "zoo.md").read_text().split())
    for name in FIVE:
        (said,) = re.findall(rf"\| `zoo/{name}` \| [^|]*?; ([\d.]+) on the 10,000 test images", text)
        assert said == f"{facts(name)['test_accuracy']:.3f}"
    (said,) = re.findall(
        r"half of what it can by layer (\d+) in `zoo/vit`, by layer (\d+) in `zoo/beit`, at none in `zoo/dinov2`", text
    )
    layers = [facts(name)["measured"]["onsets"]["used_from"]["layer"] for name in ("vit", "beit", "dinov2")]
    assert [*map(int, said), None] == layers


def test_the_sentences_follow_the_numbers(cards):
    card, says = cards

    def numbers(name):
        found = facts(name)["measured"]
        recipes, published = found.get("recipes", {}), card.published_curves()["curves"][name]
        return says.Numbers(found["intact"], found["curves"], 3, "zero", recipes, published)

    never = replace(numbers("vit"), used_from=None)
    assert "half of what it can cost from layer 3 on" in says.vit(numbers("vit"))
    assert "less than half of what it could at every layer" in says.vit(never)
    falling = [0.9] * 5 + [0.5] + [0.4] * 6
    step = replace(numbers("beit"), curves={**numbers("beit").curves, "shuffle": falling}, intact={"intact": 0.95})
    assert says.beit(step).startswith("A swap costs 5.0 points at layer 0")
    assert "loses 0.40 at most, at layer 5" in says.beit(step)
    alone = replace(
        numbers("deit"),
        intact={"intact": 0.9, "intact_cls_only": 0.84},
        curves={"shuffle": [0.85] * 12, "shuffle_cls_only": falling},
    )
    assert "a swap costs 5.0 points at most" in says.deit(alone)
    assert "less than half is left from layer 6 on" in says.deit(alone)
    assert "with the patch mean" not in says.deit(alone).lower()
    reads = numbers("clip")
    assert "from the CLS token better than that" in says.clip(reads)
    assert "no better" in says.clip(replace(reads, intact={"intact": 0.99}))
    curves = {**numbers("dinov2").curves, "probe": [0.77] * 12}
    for kind, words in (("zero", "set to zero"), ("mean", "held at its mean"), ("refit", "fitted again")):
        said = says.dinov2(replace(numbers("dinov2"), curves=curves, cls_only=kind))
        assert words in said
        assert ("fitted on both halves" in said) == (kind != "refit")
        assert "probe reads 0.77" in said
