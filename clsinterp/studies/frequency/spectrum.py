"""Images by spatial frequency: band filters, exchanged amplitudes, and simple shifts of the data."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.interventions import Seed, generator

Pixels = Float[Tensor, "batch channel height width"]


def radius(height: int, width: int) -> Float[Tensor, "height half"]:
    """Spatial frequency of every entry of `torch.fft.rfft2`, as a share of Nyquist (0: mean; corners: sqrt 2)."""
    vertical = torch.fft.fftfreq(height).abs().unsqueeze(1) * 2
    return (vertical**2 + (torch.fft.rfftfreq(width) * 2) ** 2).sqrt()


def band(pixels: Pixels, low: float, high: float) -> Pixels:
    """`pixels` with only frequencies of ``low <= radius < high`` kept, in shares of Nyquist; the mean is at 0.

    ``band(x, 0, c)`` is low-pass, ``band(x, c, inf)`` high-pass; the two add up to x.

    Raises:
        RequestError: an empty band.
    """
    if not 0 <= low < high:
        raise RequestError(f"the band from {low} to {high} was given; 0 <= low < high is expected.")
    r = radius(*pixels.shape[-2:]).to(pixels.device)
    return torch.fft.irfft2(torch.fft.rfft2(pixels) * ((r >= low) & (r < high)), s=pixels.shape[-2:])


def exchange_amplitude(pixels: Pixels, donors: Int[Tensor, " batch"], cutoff: float) -> Pixels:
    """`pixels` whose amplitude below `cutoff` (share of Nyquist) comes from the donor image; every phase stays."""
    spectrum = torch.fft.rfft2(pixels)
    amplitude = spectrum.abs()
    below = (radius(*pixels.shape[-2:]) < cutoff).to(pixels.device)
    mixed = torch.where(below, amplitude[donors.to(pixels.device)], amplitude)
    return torch.fft.irfft2(torch.polar(mixed, spectrum.angle()), s=pixels.shape[-2:])


def filters(pixels: Pixels, donors: Int[Tensor, " batch"], cuts: Sequence[float]) -> dict[tuple[str, float], Pixels]:
    """(kind, cut-off) -> `pixels` low-passed, high-passed, band-passed (up to that cut-off, from the one before it in
    `cuts`) or with the amplitude below it exchanged."""
    made = {("low-pass", c): band(pixels, 0, c) for c in cuts}
    made |= {("high-pass", c): band(pixels, c, math.inf) for c in cuts}
    made |= {("band-pass", high): band(pixels, low, high) for low, high in pairwise(cuts)}
    return made | {("amplitude exchanged", c): exchange_amplitude(pixels, donors, c) for c in cuts}


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur with a standard deviation of `sigma` pixels, edges repeated."""
    reach = max(1, round(3 * sigma))
    x = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, -1)
    padded = F.pad(pixels, [reach] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.unsqueeze(-2), groups=pixels.shape[1])
    return F.conv2d(rows, kernel.unsqueeze(-1), groups=pixels.shape[1])


def shifts(seed: Seed) -> dict[str, Callable[[Pixels], Pixels]]:
    """Shifted versions of normalised images: ``inverted`` (about the middle of the batch's range), ``blurred`` (a
    Gaussian of 5% of the width) and ``noised`` (as much noise as the batch has deviation, halved)."""
    random = generator(seed)

    def noised(x: Pixels) -> Pixels:
        return x + 0.5 * x.std() * torch.randn(x.shape, generator=random).to(x)

    return {
        "inverted": lambda x: x.amax() + x.amin() - x,
        "blurred": lambda x: blurred(x, 0.05 * x.shape[-1]),
        "noised": noised,
    }
