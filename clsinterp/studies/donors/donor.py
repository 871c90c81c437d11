"""Whom the output follows after a swap: the crossing of two curves, the area between them, pairs by confusability."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.studies.donors.bootstrap import DRAWS, Interval, interval


@dataclass(frozen=True)
class Followed:
    """What was said of each image after its CLS token was replaced by a donor's, layer by layer; labels are numbers.

    Attributes:
        own: the image's own label.
        other: the label of its donor.
        output: what the output names.
        probe: what the probe at that layer reads from the token that was handed over.
    """

    own: Int[Tensor, " n"]
    other: Int[Tensor, " n"]
    output: Int[Tensor, "n layer"]
    probe: Int[Tensor, "n layer"]

    @property
    def host(self) -> Bool[Tensor, "n layer"]:
        """The output names the image's own label."""
        return self.output == self.own.unsqueeze(1)

    @property
    def donor(self) -> Bool[Tensor, "n layer"]:
        """The output names the donor's label."""
        return self.output == self.other.unsqueeze(1)

    @property
    def read(self) -> Bool[Tensor, "n layer"]:
        """The probe reads the donor's label."""
        return self.probe == self.other.unsqueeze(1)

    def by_chance(self, answer: Int[Tensor, "n layer"]) -> Float[Tensor, "n layer"]:
        """How likely each answer names the donor's label by collision: its share among donors of images of the same label.

        The mean over images is the share of hits to be expected had donors been handed round among images of one
        label, with every answer as it is: what answers that know nothing of the donor get, be they guesses, a constant,
        or the image's own label (which under `cross_label` is never the donor's).

        Raises:
            RequestError: each image's label settles its donor's, so that following the donor cannot be told from error.
        """
        classes = 1 + int(max(x.max() for x in (self.own, self.other, answer)))
        pairs = torch.zeros(classes, classes, dtype=torch.float64)
        pairs.index_put_((self.own, self.other), torch.ones((), dtype=torch.float64), accumulate=True)
        if ((pairs > 0).sum(1) <= 1).all():
            raise RequestError(
                "an image's label settles that of its donor here, so what the output takes from the donor cannot be told from "
                "chance; at least two donor labels for one label are expected: give mode='permute', or more classes or images."
            )
        share = pairs / pairs.sum(1, keepdim=True).clamp(min=1)
        return share[self.own.unsqueeze(1), answer]


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


def above_chance(hits: Float[Tensor, " layer"], chance: Float[Tensor, " layer"]) -> Float[Tensor, " layer"]:
    """Shares of hits on a scale where `chance` is 0 and all is 1 (Cohen's kappa); 0 where chance alone hits everything."""
    return torch.where(chance < 1, (hits - chance) / (1 - chance), 0.0)


@dataclass(frozen=True)
class Numbers:
    """A model in two numbers, each with a bootstrap interval over images.

    Attributes:
        gap: area between availability (`read`) and use (`donor`), both without what chance gives (`above_chance`).
        crossing: the layer from which on the output follows the donor.
    """

    gap: Interval
    crossing: Interval


def numbers(found: Followed, seed: int = 0, draws: int = DRAWS) -> Numbers:
    """`Numbers` of a model. Images are resampled as wholes, each with its donor; donors are not drawn anew."""
    layers = found.host.shape[1]
    used, available = found.by_chance(found.output), found.by_chance(found.probe)
    values = torch.cat([found.host, found.donor, found.read, used, available], dim=1)

    def area(mean: Tensor) -> float:
        _, donor, read, donor_chance, read_chance = mean.split(layers)
        return area_between(above_chance(read, read_chance), above_chance(donor, donor_chance))

    gap = interval(area, values, draws, seed)
    cross = interval(lambda mean: crossing(*mean.split(layers)[:2]), values, draws, seed)
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
