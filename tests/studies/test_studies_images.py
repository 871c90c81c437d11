"""Filters and counting images."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from clsinterp.errors import RequestError
from clsinterp.studies.causality import images as counting
from clsinterp.studies.frequency import spectrum


def pixels(n=3, side=12):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def naive_band(x, low, high):
    """The full two-sided transform, entry by entry."""
    out = np.empty_like(x)
    height, width = x.shape[-2:]
    for i in np.ndindex(x.shape[:-2]):
        f = np.fft.fft2(x[i])
        for row in range(height):
            for column in range(width):
                a, b = min(row, height - row) / (height / 2), min(column, width - column) / (width / 2)
                if not low <= np.hypot(a, b) < high:
                    f[row, column] = 0
        out[i] = np.fft.ifft2(f).real
    return out


@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (0.3, np.inf), (0.25, 0.75)])
@pytest.mark.parametrize("side", [8, 9])
def test_a_band_is_what_the_two_sided_transform_keeps(low, high, side):
    x = pixels(2, side).double()
    np.testing.assert_allclose(spectrum.band(x, low, high), naive_band(x.numpy(), low, high), atol=1e-10)


def test_low_and_high_pass_add_up_and_an_empty_band_is_refused():
    x = pixels().double()
    torch.testing.assert_close(spectrum.band(x, 0, 0.4) + spectrum.band(x, 0.4, float("inf")), x)
    torch.testing.assert_close(spectrum.band(x, 0, 1e-9), x.mean((2, 3), keepdim=True).expand_as(x))
    with pytest.raises(RequestError, match="low < high"):
        spectrum.band(x, 0.4, 0.4)


def test_exchanged_amplitudes_are_the_donors_below_and_phases_stay():
    x, donors = pixels().double(), torch.tensor([1, 2, 0])
    found = np.fft.fft2(spectrum.exchange_amplitude(x, donors, 0.5).numpy())
    own, other = np.fft.fft2(x.numpy()), np.fft.fft2(x[donors].numpy())
    frequency = np.abs(np.fft.fftfreq(12)) * 2
    below = np.hypot(frequency[:, None], frequency[None]) < 0.5
    np.testing.assert_allclose(np.abs(found)[..., below], np.abs(other)[..., below], atol=1e-9)
    np.testing.assert_allclose(found[..., ~below], own[..., ~below], atol=1e-9)
    significant = below & (np.arange(12)[:, None] > 0)
    np.testing.assert_allclose(np.angle(found)[..., significant], np.angle(own)[..., significant], atol=1e-6)


def test_blur_is_scipys_and_shifts_are_seeded():
    x = pixels().double()
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.0, 1.0), mode="nearest", radius=(0, 0, 3, 3))
    np.testing.assert_allclose(spectrum.blurred(x, 1.0), expected, atol=1e-9)
    a, b = (spectrum.shifts((0, 1))["noised"](x) for _ in range(2))
    assert torch.equal(a, b)
    inverted = spectrum.shifts(0)["inverted"](x)
    assert (float(inverted.amax()), float(inverted.amin())) == pytest.approx((float(x.amax()), float(x.amin())))
    torch.testing.assert_close(inverted + x, torch.full_like(x, float(x.amax() + x.amin())))


@pytest.fixture
def garments():
    return 0.3 + 0.7 * torch.rand(20, counting.OBJECT, counting.OBJECT, generator=torch.Generator().manual_seed(3))


def test_pairs_differ_in_one_object_and_nothing_else(garments):
    pairs = counting.make_pairs(garments, 40, 0)
    changed = pairs.clean != pairs.corrupted
    assert not (changed & ~pairs.removed).any()
    assert (changed & pairs.removed).sum() > 0.95 * pairs.removed.sum()
    assert not (pairs.removed & pairs.others).any()
    assert pairs.count.bincount().tolist() == [0, 0, 8, 8, 8, 8, 8]
    for i in range(40):  # objects stand apart, so connected regions of the masks are objects
        assert ndimage.label(pairs.removed[i])[1] == 1
        assert ndimage.label(pairs.others[i])[1] == int(pairs.count[i]) - 1
        # the garments are brighter than any background, so the regions can be counted in the images themselves too
        assert ndimage.label(pairs.clean[i] > counting.NOISE)[1] == int(pairs.count[i])
        assert ndimage.label(pairs.corrupted[i] > counting.NOISE)[1] == int(pairs.count[i]) - 1


def test_pairs_are_seeded_and_dark_objects_left_out(garments):
    a, b, c = (counting.make_pairs(garments, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(a.clean, b.clean)
    assert not torch.equal(a.clean, c.clean)
    dark = torch.cat([garments, torch.zeros(50, counting.OBJECT, counting.OBJECT)])
    assert len(counting.visible(dark)) == len(garments)
    with pytest.raises(RequestError, match="bright enough"):
        counting.make_pairs(dark[-50:], 5, 0)


def test_masks_on_a_grid_are_the_patches_they_touch():
    mask = torch.zeros(1, counting.SIDE, counting.SIDE, dtype=torch.bool)
    mask[0, 8, 15] = mask[0, 55, 0] = True
    found = counting.on_grid(mask, 7, 7)[0].nonzero().flatten().tolist()
    assert found == [1 * 7 + 1, 6 * 7 + 0]


def test_images_become_objects():
    image = Image.fromarray(np.full((28, 28, 3), 128, np.uint8))
    made = counting.objects([image, image])
    assert made.shape == (2, counting.OBJECT, counting.OBJECT)
    assert float(made.mean()) == pytest.approx(128 / 255)
    assert counting.pictures(made)[0].getpixel((0, 0)) == 128
