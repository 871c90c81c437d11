"""The checkpoints that ship: what their cards promise, and what only models that learned something can show."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
import transformers as hf
from command_line import invoke
from safetensors import safe_open

from clsinterp.checks.local import check
from clsinterp.data.sources import open_data
from clsinterp.interventions import derange
from clsinterp.models.source import ZOO, zoo_names
from clsinterp.probing.head import Head
from clsinterp.probing.metrics import wilson
from clsinterp.studies.causality import images as counting
from clsinterp.sweeps.patching import attribution_patch, logit_difference, patch_attn_head, patch_resid, recovered
from clsinterp.vision_model import VisionModel

NAMES = zoo_names()
FASHION = [name for name in NAMES if name != "counting"]


@pytest.fixture(scope="module")
def images():
    """The 1,000 test images of the shipped sample and their labels."""
    _, test = open_data("zoo")
    return [test.image(i) for i in range(len(test))], torch.tensor(test.labels), test.class_names


@pytest.fixture(scope="module")
def zoo():
    """NAME -> VisionModel."""
    made = {}

    def get(name: str) -> VisionModel:
        if name not in made:
            made[name] = VisionModel(f"zoo/{name}", device="cpu")
        return made[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_opens_in_plain_transformers_with_every_key_in_its_place(name):
    folder = ZOO / name
    config = json.loads((folder / "config.json").read_text())
    unknown = []
    for architecture in config["architectures"]:  # zoo/clip is two models on one vision tower
        _, info = getattr(hf, architecture).from_pretrained(folder, output_loading_info=True)
        unknown.append(set(info.pop("unexpected_keys")))
        assert not any(info.values()), info
    assert not set.intersection(*unknown), unknown
    hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys())  # noqa: SIM118 - not a mapping
    assert sum(p.stat().st_size for p in folder.iterdir()) < 2.5e6


@pytest.mark.parametrize("name", FASHION)
def test_accuracy_is_that_of_the_card(zoo, images, name):
    """On the shipped 1,000 of the 10,000 images that the card counts, within sampling error."""
    pictures, labels, class_names = images
    facts = json.loads((ZOO / name / "facts.json").read_text())
    model = zoo(name)
    assert model.class_names == class_names
    with torch.no_grad():
        logits = torch.cat([model(pictures[i : i + 250]).logits for i in range(0, len(pictures), 250)])
    right = int((logits.argmax(-1) == labels).sum())
    low, high = wilson(right, len(labels))  # 95%; its whole width is about 3.9 standard errors
    assert abs(right / len(labels) - facts["test_accuracy"]) < high - low
    card = (ZOO / name / "README.md").read_text()
    assert f"**{facts['test_accuracy']:.4f}**" in card
    assert f"experiments/zoo/train_{name}.py" in card


def test_the_counting_model_counts_as_its_card_says(zoo, images):
    pictures, _, _ = images
    pairs = counting.make_pairs(counting.objects(pictures), 300, 5)
    model, facts = zoo("counting"), json.loads((ZOO / "counting" / "facts.json").read_text())
    with torch.no_grad():
        answers = [model(counting.pictures(x)).logits.argmax(-1) + 1 for x in (pairs.clean, pairs.corrupted)]
    both = ((answers[0] == pairs.count) & (answers[1] == pairs.count - 1)).double().mean()
    assert abs(both - facts["pairs_right"]) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_no_logit_wrong(zoo, name):
    """The first findings; all of them, at every hook of twelve layers, take 20 s a model. test_vision_model.py has tiny ones."""
    first = list(islice(check(zoo(name)), 3))
    assert all(finding.holds for finding in first), first
    assert "to the last bit" in first[-1].what


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing_wrong(name):
    code, text = invoke("check", f"zoo/{name}")
    assert code == 0, text
    assert "FAIL" not in text


@pytest.mark.parametrize("name", [n for n in FASHION if n != "clip"])
def test_a_swap_at_the_last_layer_hands_over_the_donors_label(zoo, images, name):
    """To the CLS read-out of a model that has one; on random weights every output would look alike."""
    pictures, labels, _ = images
    model, donors = zoo(name), derange(128, seed=0)
    with model.trace(pictures[:128]):
        block = model.blocks[model.n_layers - 1]
        block.cls = block.cls[donors]
        readout = model.readout.save()
    answers = Head.of(model.family, model.heads).only("cls", readout).argmax(-1)
    ours, theirs = ((answers == labels[:128][order]).double().mean() for order in (range(128), donors))
    assert theirs > 0.25  # chance is 0.1
    assert theirs > ours


@pytest.mark.parametrize("what", ["resid_pre", "z"])
def test_attribution_patching_tells_what_patching_does(zoo, images, what):
    """The estimate is first order, so it need not be equal; on a trained model it must rank places as patching does."""
    pictures, labels, class_names = images
    model = zoo("vit")
    clean, corrupted = (class_names.index(c) for c in ("ankle boot", "sandal"))
    pairs = [[p for p, y in zip(pictures, labels.tolist(), strict=True) if y == c][:8] for c in (clean, corrupted)]
    with torch.no_grad():
        ends = [model(side).logits for side in pairs]
    metric = recovered(logit_difference(torch.full((8,), clean), torch.full((8,), corrupted)), *ends)
    real = (patch_resid if what == "resid_pre" else patch_attn_head)(model, *pairs, metric)
    estimate = attribution_patch(model, *pairs, metric, what)
    places = [[(r["layer"], r["token"], r["head"]) for r in t.to_pylist()] for t in (real, estimate)]
    assert places[0] == places[1]
    values = np.array([real["value"], estimate["value"]])
    assert np.corrcoef(values)[0, 1] > 0.6
