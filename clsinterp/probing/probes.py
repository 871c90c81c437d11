"""Linear probes from activations and labels in one call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clsinterp.data.names import in_order
from clsinterp.errors import RequestError
from clsinterp.models.placement import exact
from clsinterp.probing.metrics import wilson
from clsinterp.probing.ridge import ALPHAS, Ridge, RidgeStats, solve

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Probes:
    """A linear probe for each layer.

    Attributes:
        ridge: their weights and penalties.
        classes: the labels they were fitted on, in the order of their scores.
    """

    ridge: Ridge
    classes: list[Any]

    def __len__(self) -> int:
        return len(self.ridge.weight)

    def __repr__(self) -> str:
        return f"Probes(layers={len(self)}, classes={len(self.classes)}, d={self.ridge.weight.shape[-1]})"

    def scores(self, tokens: Any) -> Float[Tensor, "layer batch classes"]:
        """Scores of every class, in float64; the largest is the answer.

        Raises:
            RequestError: another number of layers or features than the probes have.
        """
        x = _features(tokens)
        n, _, d = self.ridge.weight.shape
        if (len(x), x.shape[-1]) != (n, d):
            raise RequestError(f"tokens of shape {tuple(x.shape)} were given; ({n}, batch, {d}) is expected.")
        return torch.stack([self.ridge.scores(one, i) for i, one in enumerate(x)])

    def predict(self, tokens: Any) -> list[list[Any]]:
        """The label each probe gives to each image, by layer."""
        return [[self.classes[c] for c in row] for row in self.scores(tokens).argmax(-1).tolist()]

    def accuracy(self, tokens: Any, labels: Iterable[Any]) -> Float[Tensor, " layer"]:
        """The share of images that each probe gives their label. A label that was not among those fitted on is never given.

        Raises:
            RequestError: as many labels as images are expected.
        """
        return self._right(tokens, labels).double().mean(-1)

    def table(self, tokens: Any, labels: Iterable[Any]) -> pa.Table:
        """One row per layer: ``layer`` (its place in `tokens`), ``accuracy``, ``ci_low`` and ``ci_high`` (95%, Wilson), ``n``,
        ``alpha``; ``.to_pandas()`` makes a data frame of it."""
        import pyarrow as pa

        right = self._right(tokens, labels)
        hits, n = right.sum(-1).tolist(), right.shape[1]
        low, high = zip(*(wilson(h, n) for h in hits), strict=True)
        return pa.table(
            {
                "layer": list(range(len(self))),
                "accuracy": [h / n for h in hits],
                "ci_low": low,
                "ci_high": high,
                "n": [n] * len(self),
                "alpha": self.ridge.alpha.tolist(),
            }
        )

    def _right(self, tokens: Any, labels: Iterable[Any]) -> Tensor:
        """Whether each probe is right on each image, (layer, batch)."""
        scores, place = self.scores(tokens), {label: i for i, label in enumerate(self.classes)}
        index = torch.tensor([place.get(label, -1) for label in _labels(labels, scores.shape[1])])
        return scores.argmax(-1).cpu() == index


def fit_probes(
    tokens: Float[Tensor, "layer batch d"], labels: Iterable[Any], alphas: tuple[float, ...] = ALPHAS
) -> Probes:
    """Fit a ridge probe on +-1 one-hot targets for each layer, its penalty chosen by 5-fold cross-validation.

    Args:
        tokens: activations (layer, batch, d), or (batch, d) for one probe: a tensor, an array, or a data frame.
        labels: of each image: numbers or names, in a tensor, an array, a list, or a column of a data frame.
        alphas: penalties to choose from, in units of the features' own scale, see `clsinterp.probing.ridge.solve`.

    Raises:
        RequestError: tokens of another shape or not finite, as many labels as images are expected, or fewer than two images.

    Example:
        >>> from clsinterp import VisionModel, capture, fit_probes, load_data
        >>> model = VisionModel("zoo/vit")
        >>> train, test = load_data("zoo", train_per_class=20, test_per_class=10)
        >>> probes = fit_probes(capture(model, train).tokens, train.names)
        >>> accuracy = probes.accuracy(capture(model, test).tokens, test.names)
        >>> bool(accuracy[-1] > 0.7), probes.classes[:2]
        (True, ['ankle boot', 'bag'])
    """
    x = _features(tokens)
    if not torch.isfinite(x).all():
        raise RequestError("the tokens hold NaN or infinity; a probe needs numbers.")
    found = _labels(labels, x.shape[1])
    classes = _in_order(found)
    place = {label: i for i, label in enumerate(classes)}
    stats = RidgeStats.zeros(len(x), x.shape[2], len(classes), device=exact(x.device))
    stats.update(x, torch.tensor([place[label] for label in found], dtype=torch.long), torch.arange(x.shape[1]))
    return Probes(solve(stats, alphas), classes)


def _features(tokens: Any) -> Tensor:
    """`tokens` as (layer, batch, d)."""
    try:
        x = tokens.detach() if isinstance(tokens, Tensor) else torch.tensor(np.asarray(tokens))
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{type(tokens).__name__} was given as tokens; numbers (layer, batch, d) are expected."
        ) from error
    if x.ndim not in (2, 3):
        raise RequestError(f"tokens of shape {tuple(x.shape)} were given; (layer, batch, d) or (batch, d) is expected.")
    return x if x.ndim == 3 else x.unsqueeze(0)


def _labels(labels: Any, n: int) -> list[Any]:
    """`labels` as plain numbers or names, one for each of `n` images."""
    found = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(found) != n:
        raise RequestError(f"{len(found)} labels were given for {n} images; one for each is expected.")
    for i, label in enumerate(found):
        if not isinstance(label, bool | int | float | str) or label != label:
            raise RequestError(f"label {i} is {label!r}; a number or a name is expected.")
    return found


def _in_order(labels: list[Any]) -> list[Any]:
    """The different ones: names by alphabet, numbers by value."""
    found = set(labels)
    if all(isinstance(label, str) for label in found):
        return in_order(found)
    if any(isinstance(label, str) for label in found):
        raise RequestError("the labels mix names and numbers; give one or the other.")
    return sorted(found)
