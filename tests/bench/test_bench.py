"""The bench: what rows say, the note's loop stated anew against the plain twins, and the page that is made of rows."""

import importlib.util
import json
import math
import runpy
from pathlib import Path

import pytest
import torch

from clsinterp.bench import lenses
from clsinterp.bench.published import Note, accuracy, shuffling, stored_tokens
from clsinterp.bench.table import GROUPS, measure
from clsinterp.bench.timing import Row, compare
from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.errors import RequestError
from clsinterp.sweeps.capture import capture

ROOT = Path(__file__).parents[2]


def test_both_sides_in_turn_by_the_clock_that_is_named():
    now, calls = [0.0], []

    def side(name: str, takes: list[float]):
        def run() -> None:
            calls.append(name)
            now[0] += takes.pop(0)

        return run

    sides = side("ours", [9.0, 1.0, 2.0, 4.0]), side("theirs", [9.0, 3.0, 5.0, 8.0])
    row = compare("a", "b", ">= 2.2", *sides, 3, scale=2.0, clock=lambda: now[0])
    assert calls == ["ours", "theirs"] * 4  # the first pair warms up
    assert (row.ratio, row.low, row.high) == (5.0, 4.0, 6.0)
    assert (row.ours, row.theirs, row.unit, row.met, row.span) == (2.0, 10.0, "s", True, "5.00 (4.00-6.00)")
    row = compare("a", "b", "<= 1.5", side("", [0, 3.0]), side("", [0, 2.0]), 1, clock=lambda: now[0])
    assert (row.ratio, row.met, row.span) == (1.5, True, "1.50")


def test_seconds_of_the_processor_do_not_count_sleep():
    import time

    row = compare("a", "b", "", lambda: time.sleep(0.2), lambda: sum(range(300_000)), 1)
    assert row.unit == "CPU s"
    assert row.ours < 0.1
    assert row.ours < row.theirs


def test_unknown_groups_are_refused():
    with pytest.raises(RequestError, match="groups are published, fork"):
        measure(["fork", "speed"], quick=True)


@pytest.mark.skipif(importlib.util.find_spec("transformer_lens") is not None, reason="TransformerLens is installed")
def test_what_is_not_installed_is_said():
    rows = lenses.patching_rows(quick=True)
    assert len(rows) == 2
    for row in rows:
        assert row.against == "TransformerLens: not installed"
        assert (row.span, row.met) == ("", None)
        assert math.isnan(row.ratio)


def test_the_notes_loop_says_what_the_package_says():
    note = Note.of_zoo(80)
    note.published()
    note.ours()
    module, blocks = note.model._module, note.model._module.get_submodule(note.model.family.blocks)
    stored = torch.stack(stored_tokens(module, blocks, note.pixels["test"]))
    assert torch.equal(stored, capture(note.model, note.pixels["test"], range(12)).tokens)
    apart = note.apart()
    assert apart["lens"] <= 0.01  # ties
    assert apart["shuffle"] < 0.2  # another permutation
    assert apart["probe"] < 0.2  # penalties drawn from another grid
    assert max(note.found["published"]["probe"]) > 0.6


def test_the_notes_hook_is_a_swap():
    note = Note.of_zoo(40)
    module, pixels, labels = note.model._module, note.pixels["test"], note.labels["test"]
    block = module.get_submodule(note.model.family.blocks)[5]
    hook = block.register_forward_hook(shuffling)
    torch.manual_seed(2)
    found = accuracy(module, pixels, labels)
    hook.remove()
    torch.manual_seed(2)
    donors = torch.randperm(40)
    _, _, logits = plain_forward(note.model, pixels, 5, 0, lambda tokens: tokens[donors])
    assert found == pytest.approx(float((logits.argmax(-1) == labels).float().mean()))


def test_the_page_is_made_of_its_rows():
    script = runpy.run_path(str(ROOT / "experiments" / "bench.py"))
    groups = json.loads((ROOT / "docs" / "speed.json").read_text())
    assert groups
    assert not set(groups) - set(GROUPS)
    page = (ROOT / "docs" / "speed.md").read_text()
    assert page == script["put_into"](page, groups)
    row = Row("a", "b", 1.0, 0.9, 1.2, 1, 1, "s", ">= 2")
    group = {"machine": "m", "rows": [vars(row)]}
    one = script["tables"]({"probes": group | {"machine": "n"}, "fork": group}).splitlines()
    assert one[0] == "Measured on m:"
    assert one[-1] == one[4] == "| a | b | 1.00 (0.90-1.20) | >= 2, missed |"
