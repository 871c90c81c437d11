import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from clsinterp.data.preprocess import Preprocess

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PROCESSORS = {
    "vit": hf.ViTImageProcessorPil(size={"height": 32, "width": 32}),
    "deit": hf.DeiTImageProcessorPil(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}),
    "beit": hf.BeitImageProcessorPil(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD),
    "dinov2": hf.BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
    "clip": hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    "siglip": hf.SiglipImageProcessorPil(size={"height": 32, "width": 32}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_the_processors_to_the_last_bit(name):
    rng = np.random.default_rng(1)
    sizes = [(50, 61), (32, 32), (200, 40), (9, 7)]
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]
    by_table = Preprocess(PROCESSORS[name])
    assert by_table.table is not None, "this processor is not looked up"
    expected = PROCESSORS[name](images=images, return_tensors="pt")["pixel_values"]
    assert torch.equal(by_table(images), expected)


def test_a_processor_that_is_no_function_of_bytes_is_called():
    class Whole:
        def __call__(self, images, return_tensors, **steps):
            x = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1)[:, :8, :8].float() for i in images])
            x = x - x.mean()  # of the whole batch
            return {"pixel_values": x if return_tensors == "pt" else x.numpy()}

    images = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (10, 90)]
    by_table = Preprocess(Whole())
    assert by_table.table is None
    assert torch.equal(by_table(images), Whole()(images=images, return_tensors="pt")["pixel_values"])
