import json
import runpy
import sys
from pathlib import Path

import hub_cache
import pytest
import timm
import timm_models
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm_models import BARE, CLASSES, MODELS, SMALL

from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.load_timm import class_names, fresh
from clsinterp.vision_model import VisionModel

# Names as people type them, and what makes their random weights small; everything else is as published.
PUBLISHED = {
    "vit_base_patch16_224.augreg_in21k_ft_in1k": {},
    "vit_small_patch14_dinov2.lvd142m": {},
    "deit_base_distilled_patch16_224.fb_in1k": {},
    "beitv2_base_patch16_224.in1k_ft_in22k_in1k": {},
    "eva02_small_patch14_336.mim_in22k_ft_in1k": {},
    "vit_base_patch16_siglip_224.webli": {},
    "vit_small_patch16_dinov3.lvd1689m": {},
}
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def pixels(n=4, side=32):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    return hub_cache.use(tmp_path / "hub", monkeypatch)


def published(tmp_path, name):
    """The folder that timm/`name` is on the hub, small, and the model it was saved from."""
    model = timm_models.drawn(timm.create_model(name, pretrained=False, **TINY))
    return timm_models.write(tmp_path / name, model, TINY), model


@pytest.mark.parametrize("kind", MODELS)
def test_every_option_is_read_and_written(kind):
    plain = timm_models.build(kind)
    model = VisionModel(timm_models.build(kind), device="cpu")
    with torch.no_grad():
        assert torch.equal(model(pixels()), plain(pixels()))  # to the last bit
    for finding in check(model):
        assert finding.holds, finding


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_loads_as_timm_loads_it(name, cache, tmp_path):
    folder, plain = published(tmp_path, name)
    hub_cache.add(cache, f"timm/{name}", folder)
    model = VisionModel(f"timm/{name}", device="cpu")
    side = plain.pretrained_cfg["input_size"][-1]
    config = timm.data.resolve_data_config(pretrained_cfg=plain.pretrained_cfg)
    assert model.sizes.image == (side, side)
    image = Image.fromarray(torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8).numpy())
    theirs = timm.data.create_transform(**config, is_training=False)(image)[None]
    assert torch.equal(model.pixels(image), theirs)
    with torch.no_grad():
        assert torch.equal(model(theirs), plain(theirs))
    assert model.checkpoint.revision == hub_cache.COMMIT
    assert bool(model.class_names) == (plain.num_classes > 0)
    if plain.num_classes == 1000:
        assert model.class_names[:2] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    assert model.family.any_size or name.startswith("beit")
    for finding in check(model) if model.family.any_size else ():
        assert finding.holds, finding


def folder_of(tmp_path, kind="vit", **changes):
    """A folder as published, of one of the models above."""
    model = timm_models.build(kind, **changes)
    _, arguments = MODELS[kind]
    return timm_models.write(tmp_path / kind, model, {**SMALL, **arguments, **changes}), model


def rewrite(folder, change):
    """Change the weights in `folder`."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors")


def test_a_folder_loads_at_once_without_a_network(tmp_path):
    folder, plain = folder_of(tmp_path, "distilled")
    model = VisionModel(str(folder), device="cpu")
    assert torch.equal(model(pixels()), plain(pixels()))
    assert model.checkpoint.revision is None
    assert model.class_names == [f"LABEL_{i}" for i in range(CLASSES)]


@pytest.mark.parametrize("kind", ["vit", "dinov3"])
def test_what_transformers_wraps_and_saves(kind, tmp_path):
    folder, plain = folder_of(tmp_path, kind)
    cls = transformers.TimmWrapperForImageClassification if kind == "vit" else transformers.TimmWrapperModel
    wrapper = cls.from_pretrained(folder).eval()
    wrapper.save_pretrained(tmp_path / "saved")
    for source in (str(tmp_path / "saved"), wrapper):
        model = VisionModel(source, device="cpu")
        assert model.n_classes == (CLASSES if kind == "vit" else None)
        assert torch.equal(model(pixels()), plain(pixels()))


def test_a_hub_id_that_is_not_timms_own(cache, tmp_path):
    folder, plain = folder_of(tmp_path)
    hub_cache.add(cache, "someone/fine-tuned", folder)
    assert torch.equal(VisionModel("someone/fine-tuned", device="cpu")(pixels()), plain(pixels()))


def test_weights_in_parts_and_weights_pickled(tmp_path):
    folder, plain = folder_of(tmp_path)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, inside in parts.items():
        save_file({name: weights[name] for name in inside}, folder / part)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: part for part, inside in parts.items() for name in inside}})
    )
    assert torch.equal(VisionModel(str(folder), device="cpu")(pixels()), plain(pixels()))
    (folder / "model.safetensors.index.json").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(RequestError, match="allow_pickle=True"):
        VisionModel(str(folder))
    assert torch.equal(VisionModel(str(folder), device="cpu", allow_pickle=True)(pixels()), plain(pixels()))


def test_nothing_stays_random(tmp_path):
    folder, _ = folder_of(tmp_path)
    whole = load_file(folder / "model.safetensors")
    for change, said in (
        (lambda w: {n: v for n, v in w.items() if n != "blocks.1.attn.qkv.bias"}, "lacks 1 weights .* blocks.1.attn.qkv.bias"),
        (lambda w: w | {"norm.weight": torch.ones(5)}, "norm.weight of another shape"),
        (lambda w: w | {"norm.weight": torch.full((48,), torch.nan)}, "NaN or infinity in 1 weights: norm.weight"),
    ):  # fmt: skip
        save_file(change(dict(whole)), folder / "model.safetensors")
        with pytest.raises(RequestError, match=said):
            VisionModel(str(folder))


def test_a_classifier_that_was_not_saved_is_not_made_up(tmp_path):
    folder, plain = folder_of(tmp_path)
    rewrite(folder, lambda w: {n: v for n, v in w.items() if not n.startswith("head.")})
    model = VisionModel(str(folder), device="cpu")
    assert model.n_classes is None
    assert model.class_names is None
    assert torch.equal(model(pixels()), plain.forward_head(plain.forward_features(pixels()), pre_logits=True))
    with pytest.raises(RequestError, match="no classifier"), model.trace(pixels()):
        model.logits.save()


def test_a_loaded_model_is_left_as_it_is():
    plain = timm_models.build("eva")
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    model = VisionModel(plain, device="cpu")
    after = plain.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model._module.blocks[0].mlp.fc2.weight is plain.blocks[0].mlp.fc2.weight


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2-reg", "eva02", "dinov3"])
def test_images_of_another_size(kind, tmp_path):
    folder, _ = folder_of(tmp_path, kind)
    model = VisionModel(str(folder), device="cpu", image_size=48)
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True, dynamic_img_size=True).eval()
    with torch.no_grad():
        assert torch.equal(model(pixels(side=48)), plain(pixels(side=48)))
        positions = model.run_with_cache(pixels(side=48), "hook_pos_embed")[1]["pos_embed"]
    assert positions.shape[1] == model.layout.n_prefix + 36
    assert model.image_processor.size == (48, 48)
    for finding in check(model):
        assert finding.holds, finding


def test_beit_has_the_size_it_was_built_with(tmp_path):
    folder, _ = folder_of(tmp_path, "beit")
    with pytest.raises(RequestError, match="32 pixels"):
        VisionModel(str(folder), image_size=48)
    built = VisionModel(str(folder), device="cpu", config={"img_size": 48})
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=48).eval()
    assert built.image_processor.size == (48, 48)
    assert torch.equal(built(pixels(side=48)), plain(pixels(side=48)))


def test_options_of_timm_can_be_changed(tmp_path):
    folder, plain = folder_of(tmp_path)
    model = VisionModel(str(folder), device="cpu", config={"global_pool": "avg", "fc_norm": False})
    assert model.family.readouts == ("patch_mean",)
    eager = VisionModel(str(folder), device="cpu", attn_implementation="eager")
    assert not any(block.attn.fused_attn for block in eager._module.blocks)
    torch.testing.assert_close(eager(pixels()), plain(pixels()), atol=1e-4, rtol=1e-4)
    with pytest.raises(RequestError, match=r"timm cannot build .*depht"):
        VisionModel(str(folder), config={"depht": 3})
    with pytest.raises(RequestError, match="device_map was given"):
        VisionModel(str(folder), device_map="auto")
    with pytest.raises(RequestError, match="timm has eager and sdpa"):
        VisionModel(str(folder), attn_implementation="flash")


@pytest.mark.parametrize(
    ("architecture", "arguments", "why"),
    [
        ("vit_base_patch16_rpn_224", SMALL, "normalise after attention and MLP"),
        ("eva02_small_patch14_224", SMALL | {"use_post_norm": True}, "normalise after attention and MLP"),
        ("vit_pwee_patch16_reg1_gap_256", SMALL, "side by side"),
        ("vit_dwee_patch16_reg1_gap_256", SMALL, "differential attention"),
        ("vit_large_patch16_sapiens2", SMALL | BARE | {"num_heads": 4, "num_kv_heads": 2}, "grouped-query attention"),
        ("vit_base_patch16_224", SMALL | {"global_pool": "max"}, "pooling 'max'"),
        ("vit_base_patch16_224", SMALL | {"global_pool": ""}, "every token"),
        ("vit_relpos_small_patch16_224", SMALL, "a module of its own"),
        ("resnet18", {}, "ResNet is none of VisionTransformer"),
    ],
)
def test_what_no_row_describes_is_refused_by_name(architecture, arguments, why):
    with torch.device("meta"):
        model = timm.create_model(architecture, **arguments)
    with pytest.raises(RequestError, match=why):
        VisionModel(model)


def test_class_names_are_the_configs(tmp_path):
    names = [f"n{i:08}" for i in range(CLASSES)]
    folder, plain = folder_of(tmp_path)
    timm_models.write(folder, plain, SMALL, label_names=names, label_descriptions={names[0]: "crane, a bird"})
    assert VisionModel(str(folder)).class_names == ["crane, a bird", *names[1:]]


@pytest.mark.parametrize(("n", "first"), [(1000, "tench, Tinca tinca"), (11821, "benthos"), (5, "LABEL_0")])
def test_names_of_imagenets_classes(n, first):
    names = class_names({}, n)
    assert len(names) == n
    assert names[0].startswith(first)


def test_without_timm_the_extra_is_named(tmp_path, monkeypatch):
    folder, _ = folder_of(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RequestError, match=r"pip install 'clsinterp\[timm\]'"):
        VisionModel(str(folder))


def test_a_server_has_other_names_inside(tmp_path):
    folder, _ = folder_of(tmp_path)
    with pytest.raises(RequestError, match="without remote="):
        VisionModel(str(folder), remote="http://127.0.0.1:1")


def test_a_random_twin_has_the_architecture_and_other_weights():
    model = timm_models.build("beit")
    twin = fresh(model)
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(twin.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert torch.equal(twin.norm.weight if hasattr(twin.norm, "weight") else twin.fc_norm.weight, torch.ones(48))


@pytest.mark.nightly
def test_the_page_counts_what_the_rows_serve():
    counts = runpy.run_path("docs/timm_coverage.py")
    assert counts["tables"]() in Path("docs/timm.md").read_text()
