import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from clsinterp.data.images import at_size
from clsinterp.data.preprocess import Preprocess
from clsinterp.data.timm_transform import TimmTransform
from clsinterp.errors import RequestError

IMAGES = [(53, 37), (37, 53), (32, 32), (90, 41), (20, 19), (35, 200)]
CONFIGS = [
    {"crop_pct": 0.9, "interpolation": "bicubic"},
    {"crop_pct": 0.875, "interpolation": "bilinear", "crop_mode": "center"},
    {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    {"crop_pct": 0.9, "interpolation": "bilinear", "crop_mode": "squash"},
    {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "border", "mean": (0.48, 0.46, 0.41)},
    {"crop_pct": 0.95, "interpolation": "bilinear", "crop_mode": "border"},
    {"crop_pct": 0.9, "interpolation": "lanczos", "input_size": (3, 24, 40)},
    {"crop_pct": 1.0, "interpolation": "nearest", "input_size": (3, 40, 24), "crop_mode": "border"},
]  # fmt: skip


def images():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)) for w, h in IMAGES]


def data_config(**changes):
    return resolve_data_config(pretrained_cfg={"input_size": (3, 32, 32), **changes})


@pytest.mark.parametrize("changes", CONFIGS)
def test_pixels_are_timms_own_to_the_last_bit(changes):
    config = data_config(**changes)
    theirs = create_transform(**config, is_training=False)
    ours = TimmTransform.of(config)
    expected = torch.stack([theirs(image) for image in images()])
    assert torch.equal(ours(images=images(), return_tensors="pt")["pixel_values"], expected)
    if config["input_size"][1] == config["input_size"][2]:
        by_table = Preprocess(ours)
        assert by_table.table is not None
        assert torch.equal(by_table(images()), expected)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_another_size_is_timms_transform_at_that_size(mode):
    config = data_config(crop_pct=0.9, crop_mode=mode)
    theirs = create_transform(**config | {"input_size": (3, 48, 48)}, is_training=False)
    ours = at_size(TimmTransform.of(config), 48)
    expected = torch.stack([theirs(image) for image in images()])
    assert torch.equal(ours(images=images(), return_tensors="pt")["pixel_values"], expected)


def test_numpy_bytes_for_whoever_scales_them_later():
    found = TimmTransform.of(data_config())(images(), return_tensors="np", do_rescale=False, do_normalize=False)
    assert found["pixel_values"].dtype == np.uint8
    assert found["pixel_values"].shape == (len(IMAGES), 3, 32, 32)


@pytest.mark.parametrize("changes", [{"interpolation": "random"}, {"crop_mode": "corner"}])
def test_an_unknown_mode_is_refused(changes):
    with pytest.raises(RequestError, match="expected"):
        TimmTransform.of(data_config(**changes))


def test_it_can_be_compared_and_copied():
    one = TimmTransform.of(data_config())
    assert one == dataclasses.replace(one)
