from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clsinterp.data.images import decode, to_rgb
from clsinterp.errors import RequestError


def encoded(image, fmt, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


RAMP = np.tile(np.linspace(0, 255, 16, dtype=np.uint8), (16, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb_of_the_same_size(mode):
    image = to_rgb(Image.fromarray(RAMP).convert("RGB").convert(mode))
    assert (image.mode, image.size) == ("RGB", (16, 16))
    if mode != "1":
        assert abs(np.asarray(image)[..., 0].astype(int) - RAMP).max() <= (
            26 if mode == "P" else 12
        )  # the web palette has steps of 51


def test_16_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray((RAMP.astype(np.uint16)) * 257)
    assert image.mode.startswith("I;16")
    assert abs(np.asarray(decode(encoded(image, "PNG"), "x"))[..., 0].astype(int) - RAMP).max() <= 1


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise
    data = encoded(Image.fromarray(RAMP[:8]), "JPEG", exif=exif, quality=95)
    upright = decode(data, "x")
    assert upright.size == (8, 16)
    assert np.asarray(upright)[0].mean() < 40 < 200 < np.asarray(upright)[-1].mean()


def test_animated_images_give_their_first_frame():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data, "x"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2000, 1)])
def test_odd_sizes(size):
    assert decode(encoded(Image.new("RGB", size), "PNG"), "x").size == size


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", encoded(Image.fromarray(RAMP), "PNG")[:-40], encoded(Image.fromarray(RAMP), "JPEG")[:200]],
)
def test_unreadable_images_are_named(data):
    with pytest.raises(RequestError, match=r"cats/7\.png.*on_bad_image='skip'"):
        decode(data, "cats/7.png")


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RequestError, match="bomb"):
        decode(encoded(Image.new("RGB", (100, 100)), "PNG"), "x")
