"""Whom the output follows after a swap: the crossing of two curves, the area between them, pairs by confusability."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clsinterp.studies.donors.bootstrap import DRAWS, Interval, interval


@dataclass(frozen=True)
class Followed:
    """What each image's outputs named after its CLS token was replaced by a donor's, (image, layer) each.

    Attributes:
        host: the output names the image's own label.
        donor: it names the donor's label.
        read: the probe at that layer reads the donor's label from the token that was handed over.
    """

    host: Bool[Tensor, "n layer"]
    donor: Bool[Tensor, "n layer"]
    read: Bool[Tensor, "n layer"]


def crossing(host: Float[Tensor, " layer"], donor: Float[Tensor, " layer"]) -> float:
    """The layer from which on the output follows the donor rather than the host, interpolated linearly.

    It is the last change of sign of the difference; 0 if the donor leads everywhere, nan if it does not lead at the end.
    """
    ahead = (donor - host).tolist()
    if ahead[-1] <= 0:
        return float("nan")
    behind = [i for i, gap in enumerate(ahead) if gap <= 0]
    if not behind:
        return 0.0
    i = behind[-1]
    return i + ahead[i] / (ahead[i] - ahead[i + 1])


def area_between(upper: Float[Tensor, " layer"], lower: Float[Tensor, " layer"]) -> float:
    """Mean of upper - lower over depth by the trapezoid rule, so -1 to 1: the share of depth times share of images."""
    gap = upper - lower
    return float(gap) if len(gap) == 1 else float((gap[1:] + gap[:-1]).sum() / 2 / (len(gap) - 1))


@dataclass(frozen=True)
class Numbers:
    """A model in two numbers, each with a bootstrap interval over images.

    Attributes:
        gap: area between availability (`read`) and use (`donor`).
        crossing: the layer from which on the output follows the donor.
    """

    gap: Interval
    crossing: Interval


def numbers(found: Followed, seed: int = 0, draws: int = DRAWS) -> Numbers:
    """`Numbers` of a model. Images are resampled as wholes, each with its donor; donors are not drawn anew."""
    layers = found.host.shape[1]
    values = torch.cat([found.host, found.donor, found.read], dim=1)

    def split(mean: Tensor) -> tuple[Tensor, ...]:
        return mean.split(layers)

    gap = interval(lambda mean: area_between(split(mean)[2], split(mean)[1]), values, draws, seed)
    cross = interval(lambda mean: crossing(split(mean)[0], split(mean)[1]), values, draws, seed)
    return Numbers(gap, cross)


def confusability(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, "classes classes"]:
    """How easily the intact model takes one class for another: the mean probability it gives to b on images of a, both
    ways averaged. Zero on the diagonal; classes without an image count through the other's images only."""
    c = logits.shape[1]
    probability = logits.double().softmax(-1)
    sums = torch.zeros(c, c, dtype=torch.float64).index_add(0, labels, probability)
    n = torch.bincount(labels, minlength=c).double().unsqueeze(1)
    mean = torch.where(n > 0, sums / n.clamp(min=1), torch.nan)
    both = torch.stack([mean, mean.mT])
    out = torch.nanmean(both, dim=0).nan_to_num(0.0)
    return out.fill_diagonal_(0)


def thirds(values: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """0, 1 or 2 for the lowest, middle and highest third of `values`; equal values stay together."""
    edges = torch.quantile(values.double(), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    return torch.bucketize(values.double(), edges)
