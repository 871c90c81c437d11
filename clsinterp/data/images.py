"""Any image file or PIL image as upright 8-bit RGB."""

from __future__ import annotations

import copy
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clsinterp.errors import RequestError

PIECE = 2**18  # pixels scaled at once
SKIPPING = "Remove it, or pass on_bad_image='skip' to leave such images out and count them."


def to_rgb(image: Any) -> Image.Image:
    """`image` as 8-bit RGB, turned upright by its EXIF orientation.

    Palettes, alpha (dropped, as Hugging Face pipelines do), CMYK and grey are converted by Pillow; 16-bit and
    float grey images are scaled down rather than clipped at 255. A numpy array of bytes, (height, width, 3) or
    (height, width), is taken as such an image.

    Raises:
        RequestError: anything else.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
            raise RequestError(
                f"an array of {image.dtype} and shape {image.shape} was given; uint8 and (height, width, 3) is expected."
            )
        return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).convert("RGB")
    if not isinstance(image, Image.Image):
        raise RequestError(f"{type(image).__name__} was given where a PIL image or a pixel tensor is expected.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        top = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1.0)
        image = Image.fromarray(_scaled(values, 255.0 / top))
    return image.convert("RGB")


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    """``values * factor`` in float64, rounded and clipped to 8 bits; in pieces, so that no whole copy has eight bytes a pixel."""
    flat, scaled = values.reshape(-1), np.empty(values.size, np.uint8)
    for at in range(0, values.size, PIECE):
        piece = flat[at : at + PIECE].astype(np.float64)
        scaled[at : at + PIECE] = np.clip(piece * factor + 0.5, 0, 255).astype(np.uint8)
    return scaled.reshape(values.shape)


def decode(data: bytes, source: str, advice: str = SKIPPING) -> Image.Image:
    """The image in `data` as RGB; `advice` ends the message where that fails.

    Raises:
        RequestError: unreadable, truncated or bomb-sized; the message names `source`.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return to_rgb(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RequestError(f"cannot read image {source}: {type(error).__name__}: {error}. {advice}") from error


def at_size(processor: Any, side: int) -> Any:
    """A copy of an image processor whose images come out `side` x `side`; one with an ``at_size`` of its own is asked for it.

    A processor of `transformers` that crops resizes the shorter side to `side` first, so that only what is not square is cut off.
    """
    if processor is None:
        raise RequestError("an image size was given, but this model has no image processor; pass image_processor=.")
    if hasattr(processor, "at_size"):
        return processor.at_size(side)
    resized = copy.deepcopy(processor)
    square = {"height": side, "width": side}
    resized.do_resize = True
    if getattr(processor, "do_center_crop", False):
        resized.size = type(processor.size)(shortest_edge=side)
        resized.crop_size = type(processor.crop_size)(**square)
    else:
        resized.size = type(processor.size)(**square)
    return resized
