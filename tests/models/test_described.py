"""The family table as people see it: one line for a model, a command, a page."""

import runpy
from pathlib import Path

import tiny
import transformers
from command_line import invoke_flat as invoke
from transformers.models.auto import modeling_auto

from clsinterp.models.families import FAMILIES
from clsinterp.models.rows import hf_refused
from clsinterp.vision_model import VisionModel

IMAGE_TASKS = ("IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION", "BACKBONE", "IMAGE", "MASKED_IMAGE_MODELING")


def test_a_model_is_a_line():
    model = VisionModel(tiny.build("dinov2-registers"), device="cpu")
    assert repr(model) == (
        "VisionModel(dinov2-registers of transformers, 4 layers, width 32, cls + registers 3 + 9 patches, "
        "reads cls + patch_mean, head own (7 classes))"
    )
    assert "head none" in repr(VisionModel(tiny.build("dinov3"), device="cpu"))


def test_the_page_is_what_the_table_says():
    page = runpy.run_path("docs/models_table.py")
    assert page["tables"]() in Path("docs/models.md").read_text(), "python docs/models_table.py writes it"


def test_the_command_lists_every_family():
    code, text = invoke("models")
    assert code == 0
    assert [row.name for row in FAMILIES if row.name not in text] == []


def test_every_image_encoder_of_transformers_has_a_row_or_a_reason():
    names = set()
    for task in IMAGE_TASKS:
        for value in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").values():
            names |= {value} if isinstance(value, str) else set(value)
    served = {cls for row in FAMILIES for cls in row.architectures} | {
        "TimmWrapperModel",
        "TimmWrapperForImageClassification",
    }
    assert len(names) > 100
    assert sorted(name for name in names - served if hf_refused.reason(name) is None) == []
    assert sorted(name for name in served if hf_refused.reason(name)) == []
    known = dir(transformers)
    assert [start for start in hf_refused.REFUSED if not any(name.startswith(start) for name in known)] == []
