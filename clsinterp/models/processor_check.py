"""An image processor against the model it prepares pictures for: its fields, then what it makes of two pictures.

For families whose positions are of one size the model wins: a processor that makes another size is refused. Those that take
any size (`Family.any_size`) are given what the processor makes, as long as it can be cut into patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from clsinterp.errors import RequestError
from clsinterp.models.config_check import FLAG, MEAN, MEND, STD, Expected, is_number, is_whole, said, shown
from clsinterp.models.family import Family, Sizes

FILE = "preprocessor_config.json"
LARGEST = 8192  # pixels a side, as for image_size
BYTES = 16  # a normalised pixel is far below, a picture in bytes somewhere above
FILTERS = range(6)  # of Pillow

SIDES: Expected = (lambda v: _are_sides(v), f"a size in whole numbers of pixels, 1 to {LARGEST},")

# Field -> the switch under which it is used, and what it can be.
CHECKED: dict[str, tuple[str, Expected]] = {
    "image_mean": ("do_normalize", MEAN),
    "image_std": ("do_normalize", STD),
    "rescale_factor": ("do_rescale", (lambda v: is_number(v, 1e-6, 1e6), "a number above 0 (such as 1/255)")),
    "resample": ("do_resize", (lambda v: is_whole(v, 0) and v in FILTERS, "a number from 0 to 5 (a filter of Pillow)")),
    "size": ("do_resize", SIDES),
    "crop_size": ("do_center_crop", SIDES),
    "pad_size": ("do_pad", SIDES),
}
SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad", "do_convert_rgb")


def _are_sides(value: Any) -> bool:
    held = value if isinstance(value, Mapping) else vars(value) if hasattr(value, "__dict__") else {"side": value}
    sides = [side for name, side in held.items() if side is not None and not name.endswith("_pixels")]
    return bool(sides) and all(is_whole(side) and side <= LARGEST for side in sides)


def _edges(size: Any) -> tuple[float, float]:
    """Rows and columns that pictures have at least after resizing to `size`; infinite where no field says so."""
    short = getattr(size, "shortest_edge", None)
    rows, columns = (getattr(size, name, None) or short or math.inf for name in ("height", "width"))
    return rows, columns


def refuse_processor(processor: Any, family: Family, sizes: Sizes, source: str) -> None:
    """Refuse a processor whose pictures the model can't take.

    Args:
        processor: called with ``images=`` (RGB) and ``return_tensors="pt"``; None, for none, passes.
        family, sizes: of the model.
        source: what messages call the checkpoint.

    Raises:
        RequestError: a field that is not what it can be; pictures that it can't prepare; pixels that are not finite, have other
            channels or another size than the model takes, don't depend on the picture, or look like bytes.
    """
    if processor is None:
        return
    whose = f"{source or 'this model'}: its image processor ({FILE})"
    fields = {name: (FLAG, getattr(processor, name, None)) for name in SWITCHES}
    fields |= {
        name: (expected, getattr(processor, name, None))
        for name, (switch, expected) in CHECKED.items()
        if getattr(processor, switch, None)
    }
    for name, ((fits, expected), value) in fields.items():
        if value is not None and not fits(value):
            raise RequestError(f"{whose} has {name} {shown(value)}; {expected} is expected. {MEND}")
    if all(getattr(processor, name, None) for name in ("do_resize", "size", "do_center_crop", "crop_size")):
        resized, cropped = _edges(processor.size), _edges(processor.crop_size)
        if any(side > of for side, of in zip(cropped, resized, strict=True)):
            raise RequestError(
                f"{whose} crops {shown(processor.crop_size)} out of {shown(processor.size)}; the rest would be black. {MEND}"
            )
    if not any(getattr(processor, name, True) for name in ("do_resize", "do_center_crop", "do_pad")):
        made = [
            _pixels(processor, whose, *sizes.image[::-1])
        ]  # pictures must come in the right size, which each one shows
    else:
        made = [_pixels(processor, whose, *size) for size in ((60, 40), (40, 60))]
    for pixels in made:
        _refuse_values(pixels, sizes, whose)
        if reason := family.misfit((pixels.shape[-2], pixels.shape[-1]), sizes):
            raise RequestError(
                f"{whose} makes pictures of {reason} Mend size or crop_size in {FILE}, or give image_size={max(sizes.image)}."
            )


def _pixels(processor: Any, whose: str, width: int, height: int) -> torch.Tensor:
    """What the processor makes of a picture in which every channel goes from black to white."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    values[: height // 2], values[height // 2 :] = values[: height // 2] // 8, 255 - values[height // 2 :] // 8
    try:
        pixels = processor(images=[Image.fromarray(values)], return_tensors="pt")["pixel_values"]
    except Exception as error:  # a processor raises whatever its arithmetic does on what its fields say
        raise RequestError(
            f"{whose} can't prepare a picture of {width} x {height} pixels: {said(error)}. {MEND}"
        ) from error
    if not isinstance(pixels, torch.Tensor) or pixels.ndim != 4:
        raise RequestError(f"{whose} gives no pixels of shape (batch, channel, height, width). {MEND}")
    return pixels


def _refuse_values(pixels: torch.Tensor, sizes: Sizes, whose: str) -> None:
    if pixels.shape[1] != sizes.channels:
        raise RequestError(
            f"{whose} makes pictures of {pixels.shape[1]} channels, but the model reads {sizes.channels} (num_channels in "
            f"config.json). Give pixels as a tensor, and remove {FILE}; or take a checkpoint whose two files agree."
        )
    if not torch.isfinite(pixels).all():
        raise RequestError(
            f"{whose} makes NaN or infinity of a picture; look at image_mean, image_std and rescale_factor."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if max(-low, high) > BYTES or high - low < 1e-3:
        raise RequestError(
            f"{whose} makes values from {low:.3g} to {high:.3g} of a picture that goes from black to white; a few units about "
            f"zero are expected. Look at do_rescale, rescale_factor, image_mean and image_std in {FILE}."
        )
