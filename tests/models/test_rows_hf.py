"""Every row for transformers, on a model that transformers made: from the module and from its folder."""

import pytest
import rows_hf
import tiny
import torch
from rows_hf import MAKERS

from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.families import FAMILIES
from clsinterp.vision_model import VisionModel

IDS = [f"{row}-{cls}" for row, cls in MAKERS]


def truth(module, x):
    """What transformers gives: logits where it has a classifier, else the tokens; None where it leaves out patches."""
    name = type(module).__name__
    if "ForImageClassification" in name:
        return module(x).logits
    if name.startswith("ViTMAE") or name.endswith("Backbone"):
        return None
    if "Masked" in name:
        return next(module.children())(x).last_hidden_state
    has_tower = hasattr(module, "text_model") or "Projection" in name
    return (module.vision_model if has_tower else module)(x).last_hidden_state


@pytest.mark.parametrize(("row", "cls"), MAKERS, ids=IDS)
def test_a_row_reads_and_writes_what_transformers_computes(row, cls, tmp_path):
    module, x = rows_hf.build(row, cls), tiny.pixels(3)
    with torch.no_grad():
        expected = truth(module, x)
    module.save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    for source in (module, str(tmp_path)):
        model = VisionModel(source, device="cpu")
        assert model.family.name == row
        with torch.no_grad():
            output = model(x)
        if "ForImageClassification" in cls:
            assert model.checkpoint.head == "own"
            assert torch.equal(output.logits, expected)
        else:
            assert model.checkpoint.head == "none"
            assert getattr(output, "logits", None) is None
            with pytest.raises(RequestError, match="fit_head"), model.trace(x):
                model.logits.save()
            if expected is not None:
                assert torch.equal(output.last_hidden_state, expected)
    bad = [f"{finding.what}: {finding.detail}" for finding in check(model) if not finding.holds]
    assert bad == []


def test_every_row_for_transformers_is_tried():
    tried = {row for row, _ in MAKERS} | set(tiny.BUILD)
    assert tried == {row.name for row in FAMILIES if row.library == "transformers" and not row.text}  # test_zero_shot
