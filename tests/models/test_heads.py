"""A head is fitted, put into a model, saved and loaded; without one there are no logits, by any path."""

import json

import pytest
import rows_hf
import timm_models
import tiny
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.loading import fresh
from clsinterp.vision_model import VisionModel

LABELS = ["ant", "bee", "cat"] * 4


def hf(tmp_path, row, cls):
    module = rows_hf.build(row, cls)
    module.save_pretrained(tmp_path / "model")
    tiny.processor().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model"), tiny.pixels(12)


def timm(tmp_path, kind):
    _, arguments = timm_models.MODELS[kind]
    folder = timm_models.write(tmp_path / "model", timm_models.build(kind), {**timm_models.SMALL, **arguments})
    return str(folder), torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))


MODELS = {
    "bare, cls and patches": (hf, "dinov2", "Dinov2Model"),
    "bare, normed after pooling": (hf, "beit-mean", "BeitModel"),
    "bare tower": (hf, "clip", "CLIPVisionModel"),
    "bare, no cls": (hf, "ijepa", "IJepaModel"),
    "its own head": (hf, "vit", "ViTForImageClassification"),
    "two heads": (hf, "deit", "DeiTForImageClassificationWithTeacher"),
    "bare timm": (timm, "dinov2-reg"),
    "bare timm, tokens": (timm, "no-positions"),
    "bare timm, no norm": (timm, "no-last-norm"),
    "timm": (timm, "vit"),
    "timm, two heads": (timm, "distilled"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_fitted_head_answers_and_is_saved(kind, tmp_path):
    make, *what = MODELS[kind]
    source, x = make(tmp_path, *what)
    model = VisionModel(source, device="cpu")
    before = model(x)
    head = model.fit_head((x, LABELS))
    answering = model.with_head(head)
    with torch.no_grad(), model.trace(x):
        readout = model.readout.clone().save()
    expected = torch.stack(
        [
            part @ w.T.to(part) + b.to(part)
            for part, w, b in zip(readout.chunk(len(head.weights), -1), head.weights, head.biases, strict=True)
        ]
    ).mean(0)
    with torch.no_grad(), answering.trace(x):
        seen = answering.readout.clone().save()
        logits = answering.logits.save()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(seen, readout)
    assert answering.class_names == ["ant", "bee", "cat"]
    assert answering.n_classes == 3
    assert "head fitted (3 classes)" in repr(answering)
    # The model it came from is as it was, and shares its weights.
    after = model(x)
    assert torch.equal(*(value if isinstance(value, torch.Tensor) else value[0] for value in (after, before)))
    assert model.checkpoint.head in ("own", "none")
    blocks = (m._module.get_submodule(m.family.blocks)[0] for m in (model, answering))
    assert next(blocks) is next(blocks)
    head.save(tmp_path / "head.safetensors")
    again = VisionModel(source, classifier=tmp_path / "head.safetensors", device="cpu")
    with torch.no_grad():
        output = again(x)
    assert torch.equal(getattr(output, "logits", output), logits)
    bad = [f"{finding.what}: {finding.detail}" for finding in check(again) if not finding.holds]
    assert bad == []
    # The module that answers can be given on, and drawn anew as a control.
    given = VisionModel(answering._module, device="cpu")
    assert given.n_classes == 3
    random = VisionModel(fresh(answering._module, model.family.library), device="cpu")
    with torch.no_grad():
        assert torch.equal(*(getattr(out, "logits", out) for out in (given(x), output)))
        assert not torch.equal(*(getattr(out, "logits", out) for out in (random(x), output)))


@pytest.mark.parametrize("kind", ["bare, cls and patches", "its own head", "two heads"])
def test_a_head_goes_into_a_model_that_accelerate_placed(kind):
    """On several devices every module runs through a hook of accelerate, which is bound to the module it was put on."""
    _, row, cls = MODELS[kind]
    plain, module, x = rows_hf.build(row, cls), rows_hf.build(row, cls), tiny.pixels(12)
    module.load_state_dict(plain.state_dict())
    for part in module.modules():
        add_hook_to_module(part, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    plain, placed = (VisionModel(m, image_processor=tiny.processor(), device="cpu") for m in (plain, module))
    head = plain.fit_head((x, LABELS))
    answering = placed.with_head(head)
    found, wanted = answering(x), plain.with_head(head)(x)
    assert torch.equal(*(getattr(out, "logits", out) for out in (found, wanted)))
    with torch.no_grad(), answering.trace(x):
        logits = answering.logits.save()
    assert torch.equal(logits, getattr(wanted, "logits", wanted))
    before, after = plain(x), placed(x)
    assert torch.equal(*(v if isinstance(v, torch.Tensor) else v[0] for v in (after, before))), "it changed its source"


def test_a_head_says_what_it_is_not_for(tmp_path):
    source, x = hf(tmp_path / "a", "dinov2", "Dinov2Model")
    model = VisionModel(source, device="cpu")
    head = model.fit_head((x, LABELS))
    other = VisionModel(hf(tmp_path / "b", "vit", "ViTModel")[0], device="cpu")
    with pytest.raises(RequestError, match=r"reads 32 features .* 16 .cls. are expected of this vit"):
        other.with_head(head)
    path = tmp_path / "head.safetensors"
    head.save(path)
    with pytest.raises(RequestError, match="is a head of"):
        other.with_head(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\x00\x01\x02\x03")
    with pytest.raises(RequestError, match="checksum is wrong"):
        FittedHead.load(path)
    for there in (tmp_path / "model", tmp_path / "nothing"):
        with pytest.raises(RequestError):
            FittedHead.load(there)
    with pytest.raises(RequestError, match="12 images and 11 labels"):
        model.fit_head((x, LABELS[1:]))
    with pytest.raises(RequestError, match="Split, or"):
        model.fit_head(3)
    with pytest.raises(RequestError, match="opened by name"):
        model.fit_head((x, LABELS), train_per_class=3)


@pytest.mark.parametrize(
    ("row", "cls"), [("dinov2", "Dinov2Model"), ("vit", "ViTForImageClassification"), ("clip", "CLIPModel")]
)
def test_untrained_logits_are_never_given(row, cls, tmp_path):
    """Neither of a backbone, nor of a checkpoint that claims a classifier it lacks."""
    source, x = hf(tmp_path, row, cls)
    folder = tmp_path / "model"
    from safetensors.torch import load_file, save_file

    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("classifier.")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    claimed = {"dinov2": "Dinov2ForImageClassification", "clip": "CLIPForImageClassification"}.get(row, cls)
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [claimed, *config["architectures"]][:1]}))
    model = VisionModel(source, device="cpu")
    assert model.n_classes is None
    assert model.class_names is None
    assert "head none" in repr(model)
    assert getattr(model(x), "logits", None) is None
    with pytest.raises(RequestError, match="fit_head"), model.trace(x):
        model.logits.save()
    assert "hook_logits" not in model.hook_names()
    with pytest.raises(RequestError):
        model.run_with_cache(x, "hook_logits")
