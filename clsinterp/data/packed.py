"""Pixels as bytes: exact, and a quarter of the size.

What an image processor gives are 8-bit values, scaled and normalised, so each channel holds at most 256 numbers. They are
sent as one byte each and a table of those numbers, and looked up on the other side: no arithmetic is repeated there, so
what arrives is the same to the last bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEVELS = 256


class PackedPixels:
    """Pixels (batch, channel, height, width) as one byte each.

    Attributes:
        codes: uint8, (batch, channel, height, width).
        levels: what each code of each channel stands for, (channel, 256).
    """

    def __init__(self, codes: Tensor, levels: Tensor) -> None:
        self.codes, self.levels = codes, levels

    def __len__(self) -> int:
        return len(self.codes)

    def unpack(self) -> Tensor:
        """The pixels."""
        return torch.stack([self.levels[c][self.codes[:, c].long()] for c in range(len(self.levels))], dim=1)


def pack(pixels: Tensor) -> PackedPixels | Tensor:
    """`pixels` (batch, channel, height, width) packed, or as they are where a channel has more than 256 values."""
    if pixels.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return pixels.clone()  # of a slice, pickle would send the whole tensor
    channels, levels = [], []
    for channel in pixels.detach().cpu().float().transpose(0, 1).contiguous().numpy():
        found = _levels(channel)
        if found is None:
            return pixels.clone()
        channels.append(torch.from_numpy(np.searchsorted(found, channel).astype(np.uint8)))
        levels.append(torch.from_numpy(np.pad(found, (0, LEVELS - len(found)), mode="edge")))
    return PackedPixels(torch.stack(channels, dim=1), torch.stack(levels).to(pixels.dtype))


def _levels(channel: np.ndarray) -> np.ndarray | None:
    """The distinct values of a channel, sorted; None for more than 256 or for NaN."""
    found = np.empty(0, dtype=channel.dtype)
    for image in channel:
        # Most images add nothing new: a look-up in what is known is much cheaper than sorting every pixel.
        if len(found):
            place = np.minimum(np.searchsorted(found, image), len(found) - 1)
            image = image[found[place] != image]
        if image.size:
            found = np.unique(np.concatenate([found, image.ravel()]))
            if len(found) > LEVELS or np.isnan(found).any():
                return None
    return found if len(found) else None
