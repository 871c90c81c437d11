"""A checkpoint's own image processor, applied to a batch by table: the same pixels to the last bit, sooner.

Resizing and cropping leave bytes, and rescaling and normalising are functions of one byte and its channel. So they are
looked up in a table of 256 values per channel, which the processor itself fills.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

LEVELS = np.arange(256, dtype=np.uint8)


class Preprocess:
    """Calls on lists of RGB images give pixels (batch, 3, height, width), equal to those of `processor`.

    Args:
        processor: a Hugging Face image processor. One whose steps cannot be told apart, or that gives anything else by
            table than when called, is called.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.table = self._table()

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
        """Pixels of `images`."""
        if self.table is None:
            return self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return self._by_table(images, self.table)

    def _by_table(self, images: Sequence[Image.Image], table: np.ndarray) -> Tensor:
        bytes_only = self.processor(images=list(images), do_rescale=False, do_normalize=False, return_tensors="np")
        codes = bytes_only["pixel_values"]
        if codes.dtype != np.uint8:
            raise TypeError(f"{type(self.processor).__name__} resizes to {codes.dtype}, not to bytes.")
        pixels = np.empty(codes.shape, table.dtype)
        for pixel, code in zip(pixels, codes, strict=True):  # image by image, which stays in the cache
            for channel, levels in enumerate(table):
                pixel[channel] = levels[code[channel]]
        return torch.from_numpy(pixels)

    def _table(self) -> np.ndarray | None:
        """Value of each byte in each channel, (3, 256); None where the processor is no such function."""
        try:
            ramp = Image.fromarray(np.repeat(LEVELS[None, :, None], 3, axis=2))
            plain = {"do_resize": False, "do_center_crop": False, "return_tensors": "np"}
            table = self.processor(images=[ramp], **plain)["pixel_values"][0, :, 0]
            generator = np.random.default_rng(0)
            trial = [Image.fromarray(generator.integers(0, 256, (37, 53, 3), np.uint8)) for _ in range(2)]
            called = self.processor(images=trial, return_tensors="pt")["pixel_values"]
            return table if torch.equal(self._by_table(trial, table), called) else None
        except (TypeError, ValueError, KeyError, IndexError):
            return None
