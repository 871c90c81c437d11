import json

import hub_cache
import pytest
import timm
import timm_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm_models import BARE, CLASSES, MODELS, SMALL

from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.load_timm import misfit
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
    image = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8).numpy()
    image = transformers.image_utils.PIL.Image.fromarray(image)
    theirs = timm.data.create_transform(**config, is_training=False)(image)[None]
    assert torch.equal(model.pixels(image), theirs)
    with torch.no_grad():
        assert torch.equal(model(theirs), plain(theirs))
    assert model.checkpoint.revision == hub_cache.COMMIT
    assert bool(model.class_names) == (plain.num_classes > 0)
    if plain.num_classes == 1000:
        assert model.class_names[:2] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    findings = {finding.what: finding.holds for finding in check(model)} if side <= 224 else {}
    assert all(findings.values()), findings
