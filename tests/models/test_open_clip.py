"""Vision towers of open_clip against open_clip's own forward, loaded and from the layouts of the hub."""

import builtins
import json
import sys
from functools import cache
from pathlib import Path

import hub_cache
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clsinterp import VisionModel
from clsinterp.checks.local import check
from clsinterp.errors import RequestError

LAION = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
CLASSES, TEMPLATE = ["cat", "ankle boot", "t-shirt"], "a photo of a {}."
VISION = {"image_size": 24, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16, "mlp_ratio": 2.0}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
KINDS = {
    "token": ({}, {"quick_gelu": True}),
    "mean, LayerScale, a bias": ({"ls_init_value": 0.3, "pool_type": "avg"}, {"init_logit_bias": -3.0}),
    "no ln_pre, norm after pooling": ({"no_ln_pre": True, "final_ln_after_pool": True}, {}),
    "mean before the norm": ({"final_ln_after_pool": True, "pool_type": "avg", "patch_dropout": 0.5}, {}),
}
# As in the laion repository, but for sizes.
PREPROCESS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def build(vision=None, **options):
    """A random model whose logits differ enough between images that ranks mean something."""
    torch.manual_seed(0)
    model = open_clip.model.CLIP(8, {**VISION, **(vision or {})}, dict(TEXT), **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.3)
    return model


@cache
def tokenizer():
    return open_clip.tokenizer.SimpleTokenizer(context_length=TEXT["context_length"])


def pixels(n):
    return torch.randn(n, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def files(preprocess=None):
    """The two files of a repository in the layout of open_clip."""
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}}
    return {"open_clip_config.json": config | {"preprocess_cfg": PREPROCESS if preprocess is None else preprocess}}


def save(folder: Path, name="open_clip_model.safetensors", **options) -> Path:
    folder.mkdir(exist_ok=True)
    for file, content in files(**options).items():
        (folder / file).write_text(json.dumps(content))
    save_file({key: value.contiguous() for key, value in build().state_dict().items()}, folder / name)
    return folder


@pytest.fixture
def by_steps():
    """torch's attention in steps: its fused kernel rounds differently."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_is_open_clips_to_the_last_bit(by_steps, kind):
    vision, options = KINDS[kind]
    whole = build(vision, **options)
    with torch.no_grad():
        expected = whole.visual(pixels(5))
        for given in (whole, whole.visual):
            assert torch.equal(VisionModel(given)(pixels(5)), expected)


def test_it_is_so_at_the_size_of_a_real_model(by_steps):
    whole = build({"image_size": 224, "patch_size": 32, "width": 768, "head_width": 64, "layers": 1})
    images = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(VisionModel(whole)(images), whole.visual(images))
        torch.backends.mha.set_fastpath_enabled(True)
        fused = whole.visual(images)  # the same up to rounding
        torch.testing.assert_close(VisionModel(whole)(images), fused, rtol=1e-4, atol=1e-4 * float(fused.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_check_finds_nothing_wrong(kind, classes):
    """Every token view and hook name read and written, and the fork against one forward per layer."""
    vision, options = KINDS[kind]
    findings = list(check(VisionModel(build(vision, **options), classes=classes, tokenizer=tokenizer())))
    assert not [f for f in findings if not f.holds]
    assert any("fork" in f.what for f in findings)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_shot_logits_are_those_of_get_logits(kind):
    vision, options = KINDS[kind]
    whole = build(vision, **options)
    model = VisionModel(whole, classes=CLASSES, templates=[TEMPLATE], tokenizer=tokenizer())
    with torch.no_grad():
        expected, _ = whole.get_logits(pixels(6), tokenizer()([TEMPLATE.format(name) for name in CLASSES]))
        torch.testing.assert_close(model(pixels(6)), expected, rtol=1e-5, atol=1e-5)
    assert model.class_names == CLASSES
    assert model.family.name == ("open-clip-mean-text" if "mean" in kind else "open-clip-text")


def test_a_fitted_head_reads_the_pooled_tokens_and_not_their_projection():
    model = VisionModel(build())
    fitted = model.with_head(model.fit_head((pixels(12), ["cat", "dog"] * 6)))
    with torch.no_grad(), model.trace(pixels(4)):
        readout = model.readout.clone().save()
    with torch.no_grad():
        torch.testing.assert_close(fitted(pixels(4)), fitted.heads[0](readout))
    assert not [f for f in check(fitted) if not f.holds]
    with pytest.raises(RequestError, match="has no classifier"), model.trace(pixels(4)):
        model.logits.save()


TIMM = {
    "token, projected": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"},
    "map, as it is": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
}


def build_timm(kind):
    """A model on a timm tower, its weights random."""
    torch.manual_seed(0)
    vision = {"image_size": 160, **TIMM[kind]}
    model = open_clip.model.CustomTextCLIP(64, vision, dict(TEXT), init_logit_bias=-3.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.normal_(0, 0.05)
    return model


@pytest.mark.parametrize("kind", TIMM)
def test_a_timm_tower_goes_by_timms_row(tmp_path, kind):
    whole, images = build_timm(kind), torch.randn(2, 3, 160, 160)
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 64, "custom_text": True, "init_logit_bias": -3.0,
                                  "vision_cfg": {"image_size": 160, **TIMM[kind]}, "text_cfg": TEXT}})
    )  # fmt: skip
    save_file(
        {name: value.contiguous() for name, value in whole.state_dict().items()},
        tmp_path / "open_clip_model.safetensors",
    )
    for source in (whole, str(tmp_path)):
        given = {"tokenizer": tokenizer()} if source is whole else {}
        bare = VisionModel(source)
        model = VisionModel(source, classes=CLASSES, templates=[TEMPLATE], **given)
        with torch.no_grad():
            assert torch.equal(bare(images), whole.visual.trunk(images))
            expected, _ = whole.get_logits(images, tokenizer()([TEMPLATE.format(name) for name in CLASSES]))
            torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
        assert (bare.family.library, model.family.text, model.class_names) == ("timm", True, CLASSES)
    read = [f for f in check(model) if not f.holds]
    assert not read


def test_a_loaded_model_is_left_as_it_is():
    whole = build()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    VisionModel(whole, classes=CLASSES, tokenizer=tokenizer())
    assert type(whole.visual.transformer.resblocks[0].attn) is torch.nn.MultiheadAttention
    assert whole.visual.proj is not None
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"])
def test_the_hub_layout_is_loaded_by_its_id(tmp_path, monkeypatch, weights):
    folder = save(tmp_path / "files", weights)
    hub_cache.add(hub_cache.use(tmp_path / "hub", monkeypatch), LAION, folder)
    model = VisionModel(LAION, classes=CLASSES, templates=[TEMPLATE])
    findings = list(check(model))
    assert not [f for f in findings if not f.holds]
    assert "logits equal open_clip's to the last bit" in [f.what for f in findings]
    whole = build()
    with torch.no_grad():
        expected, _ = whole.get_logits(pixels(4), tokenizer()([TEMPLATE.format(name) for name in CLASSES]))
        torch.testing.assert_close(model(pixels(4)), expected, rtol=1e-5, atol=1e-5)
    assert model.checkpoint.revision == hub_cache.COMMIT
    assert VisionModel(LAION).n_classes is None


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        PREPROCESS | {"interpolation": "bilinear", "resize_mode": "squash"},
        PREPROCESS | {"interpolation": "bicubic", "resize_mode": "longest", "fill_color": 0},
    ],
)
def test_pixels_are_those_of_open_clips_transform(tmp_path, preprocess):
    folder = save(tmp_path / "m", preprocess=preprocess)
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 31), (24, 24), (17, 60))]
    model = VisionModel(str(folder))
    assert torch.equal(model.pixels(pictures), torch.stack([transform(picture) for picture in pictures]))


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    folder = save(tmp_path / "m")
    whole = build()
    for given, options, words in (
        (whole.visual, {"classes": CLASSES}, "has no text tower; give the whole open_clip model"),
        (whole, {"classes": CLASSES}, "class names need a tokenizer"),
        (whole, {"classes": ["cat"], "templates": ["no place"], "tokenizer": tokenizer()}, "no place for a class name"),
        (build({"attentional_pool": True, "attn_pooler_heads": 2}), {}, "pools by attention"),
        (build({"qk_norm": True}), {}, "norms inside attention"),
        (
            build({"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}),
            {},
            "ModifiedResNet is not in the family table",
        ),
        (str(folder), {"config": {"width": 3}}, "width was given, which a checkpoint of open_clip does not take"),
        (str(folder), {"classes": ["a very long name " * 9]}, "the text tower reads 16"),
    ):
        with pytest.raises(RequestError, match=words):
            VisionModel(given, **options)
    partial = {name: value for name, value in build().state_dict().items() if "ln_post" not in name}
    save_file(partial, folder / "open_clip_model.safetensors")
    with pytest.raises(RequestError, match=r"lacks 2 weights, which would stay random: visual.ln_post"):
        VisionModel(str(folder))
    broken = build().state_dict()
    broken["visual.proj"][0, 0] = float("nan")
    save_file(broken, folder / "open_clip_model.safetensors")
    with pytest.raises(RequestError, match=r"NaN or infinity in 1 weights: visual.proj"):
        VisionModel(str(folder))
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(build().state_dict(), folder / "open_clip_pytorch_model.bin")
    with pytest.raises(RequestError, match="allow_pickle=True"):
        VisionModel(str(folder))
    assert VisionModel(str(folder), allow_pickle=True).n_layers == 3

    real = builtins.__import__

    def without(name, *args, **options):
        if name == "open_clip":
            raise ImportError("no such module")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "open_clip")
    with pytest.raises(RequestError, match=r"pip install 'clsinterp\[open-clip\]'"):
        VisionModel(str(folder))
