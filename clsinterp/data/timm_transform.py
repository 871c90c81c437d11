"""timm's evaluation transform in PIL and torch, which need no torchvision: the same pixels to the last bit.

Stands where a Hugging Face image processor stands, and takes the arguments of one that the package uses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clsinterp.errors import RequestError

RESAMPLING = {mode.name.lower(): mode for mode in Image.Resampling}
CROP_MODES = ("center", "squash", "border")


@dataclasses.dataclass(frozen=True)
class TimmTransform:
    """Resize, crop, scale to 0..1, normalise.

    Attributes:
        size: rows and columns of pixels.
        crop_pct: what share of the resized image's sides the crop keeps.
        crop_mode: ``center`` (the shorter side is resized, the middle cut out), ``squash`` (each side is resized, whatever
            the aspect) or ``border`` (the longer side is resized, the rest filled with the mean colour).
        interpolation: of resizing: ``bicubic``, ``bilinear``, ``nearest``, ``lanczos``, ``box`` or ``hamming``.
        image_mean, image_std: of each channel, for values 0 to 1.
    """

    size: tuple[int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TimmTransform:
        """The transform that a data config of timm describes (``timm.data.resolve_data_config``).

        Raises:
            RequestError: an interpolation or a crop mode that there is none of.
        """
        interpolation, mode = config["interpolation"], config["crop_mode"] or "center"
        if interpolation not in RESAMPLING or mode not in CROP_MODES:
            raise RequestError(
                f"interpolation {interpolation!r} and crop mode {mode!r} were given; one of {', '.join(RESAMPLING)} and one "
                f"of {', '.join(CROP_MODES)} are expected."
            )
        _, rows, columns = config["input_size"]
        mean, std = tuple(config["mean"]), tuple(config["std"])
        return cls((rows, columns), config["crop_pct"], mode, interpolation, mean, std)

    def at_size(self, side: int) -> TimmTransform:
        """The same for images of `side` x `side` pixels."""
        return dataclasses.replace(self, size=(side, side))

    def __call__(
        self,
        images: Sequence[Image.Image],
        return_tensors: str = "pt",
        do_resize: bool = True,
        do_center_crop: bool = True,
        do_rescale: bool = True,
        do_normalize: bool = True,
    ) -> dict[str, Any]:
        """``pixel_values`` (batch, channel, height, width) of RGB `images`: torch (``pt``) or numpy (``np``).

        The steps can be left out one by one. Without rescaling and normalising they are bytes.
        """
        found = []
        # What stands beyond the image's edge: the mean colour around the whole image, else black.
        fill = tuple(round(255 * m) if self.crop_mode == "border" else 0 for m in self.image_mean)
        for image in images:
            resized = self._resized(image) if do_resize else image
            cropped = _centre(resized, self.size, fill) if do_center_crop else resized
            values = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()
            found.append(self._scaled(values, do_rescale, do_normalize))
        pixels = torch.stack(found)
        return {"pixel_values": pixels if return_tensors == "pt" else pixels.numpy()}

    def _scaled(self, values: Tensor, do_rescale: bool, do_normalize: bool) -> Tensor:
        if do_rescale:
            values = values.float().div(255)
        if not do_normalize:
            return values
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.image_mean, self.image_std))
        return values.float().sub(mean).div(std)

    def _resized(self, image: Image.Image) -> Image.Image:
        rows, columns = (math.floor(side / self.crop_pct) for side in self.size)
        width, height = image.size
        if self.crop_mode == "squash":
            size = (columns, rows)
        elif self.crop_mode == "center" and rows == columns:
            short, long = sorted(image.size)
            scaled = int(rows * long / short)
            size = (rows, scaled) if width <= height else (scaled, rows)
        else:
            pick = max if self.crop_mode == "border" else min
            ratio = pick(height / rows, width / columns)
            size = (round(width / ratio), round(height / ratio))
        return image if size == image.size else image.resize(size, RESAMPLING[self.interpolation])


def _centre(image: Image.Image, size: tuple[int, int], fill: tuple[int, ...]) -> Image.Image:
    """The middle of `image`, filled up where it is smaller than `size` (rows, columns)."""
    rows, columns = size
    if image.width < columns or image.height < rows:
        across, down = (max(0, wanted - has) for wanted, has in ((columns, image.width), (rows, image.height)))
        border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        image = ImageOps.expand(image, border=border, fill=fill)
    left, top = (round((has - wanted) / 2) for wanted, has in ((columns, image.width), (rows, image.height)))
    return image.crop((left, top, left + columns, top + rows))
