"""What a probe after a swap gets for nothing: images whose donor has their own label keep it."""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from clsinterp.probing.metrics import mean_interval
from clsinterp.runs.verdicts import FEWEST

FLOOR = "donor of the same label"  # as a curve: the share of images for which that is so


def above_floor(right: Bool[Tensor, " n"], kept: Bool[Tensor, " n"]) -> bool:
    """Whether more answers are right than labels were left in place by the swap, on the same images.

    Args:
        right: whether the probe's answer is the image's label.
        kept: whether its donor has the same label.

    Returns:
        Whether the 95% interval of the paired difference lies above 0.
    """
    low, _ = mean_interval(right.double() - kept.double())
    return low > 0


def back_after(right: Mapping[tuple[int, int], Bool[Tensor, " n"]], layer: int, kept: Bool[Tensor, " n"]) -> int | None:
    """Blocks after a swap from which on every probe is above the floor; None if none is, or below `FEWEST` images.

    From there on, and not just once: of a dozen probes that read nothing one may well pass its test.

    Args:
        right: (layer of the swap, probed layer) -> whether that probe's answers are the images' labels.
        layer: of the swap.
        kept: whether each image's donor has the same label.
    """
    if len(kept) < FEWEST:
        return None
    probed = sorted(j for shuffled, j in right if shuffled == layer)
    below = [j for j in probed if not above_floor(right[layer, j], kept)]
    first = max(below, default=layer - 1) + 1
    return first - layer if first <= probed[-1] else None
