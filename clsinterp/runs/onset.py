"""Two layers that sum a run up: where the label can be decoded from, and where the output uses it from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clsinterp.sweeps.columns import column, parse

DRAWS = 1000


@dataclass(frozen=True)
class Onset:
    """The first layer at which a curve passes half its way, with a bootstrap interval over images.

    Attributes:
        layer: that layer; None where the curve never gets there.
        ci: the 95% interval of the layer; an end is None where it is "never".
    """

    layer: int | None
    ci: tuple[int | None, int | None]

    def __str__(self) -> str:
        """The layer, and its interval where resampling moves it."""
        layer, low, high = ("never" if x is None else str(x) for x in (self.layer, *self.ci))
        return layer if low == layer == high else f"{layer} [{low}, {high}]"

    def to_json(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {"layer": self.layer, "ci": list(self.ci)}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Onset":
        """The twin of `to_json`."""
        return cls(value["layer"], (value["ci"][0], value["ci"][1]))


def onsets(images: pa.Table, n_classes: int, seed: int = 0) -> dict[str, Onset]:
    """Where the label is decodable from, and where the output uses it from, in a run's ``images.parquet``.

    ``decodable_from`` is the first layer whose probe reaches half of the best probe's accuracy. ``used_from`` is the first
    layer whose swap costs half of what a swap can cost, which is everything above chance: intact accuracy - 1 / C.
    Layer -1, before block 0, takes no part.

    Args:
        images: per-image ranks, as a run writes them.
        n_classes: classes of the output, for chance.
        seed: of the 1000 bootstrap resamples of the images.
    """
    intact = (images[column("intact")].to_numpy() == 0).astype(np.float64)[:, None]
    layers, probe = _hits(images, "probe")
    _, shuffle = _hits(images, "shuffle")

    def first(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (draw,) of the two layers for image weights (draw, image) that sum to 1; ``len(layers)`` is never."""
        accuracy = weights @ probe
        cost, whole = weights @ intact - weights @ shuffle, weights @ intact - 1 / n_classes
        return _first(accuracy >= accuracy.max(1, keepdims=True) / 2), _first((cost >= whole / 2) & (whole > 0))

    n = len(intact)
    generator = np.random.default_rng(seed)
    draws = [first(_resample(n, generator)) for _ in range(DRAWS)]
    found = {}
    for i, name in enumerate(("decodable_from", "used_from")):
        ends = np.percentile([draw[i] for draw in draws], [2.5, 97.5], method="nearest").astype(int)
        point = int(first(np.full((1, n), 1 / n))[i][0])
        layer, low, high = (layers[place] if place < len(layers) else None for place in (point, *ends))
        found[name] = Onset(layer, (low, high))
    return found


def _hits(images: pa.Table, curve: str) -> tuple[list[int], np.ndarray]:
    """Layers of `curve` and whether each image is right there, (image, layer)."""
    read = [found for name in images.column_names if (found := parse(name))]
    layers = sorted(c.layers[0] for c in read if (c.kind, c.curve) == ("rank", curve) and c.layers[0] >= 0)
    hits = [images[column(curve, layer)].to_numpy() == 0 for layer in layers]
    return layers, np.stack(hits, axis=1).astype(np.float64)


def _resample(n: int, generator: np.random.Generator) -> np.ndarray:
    return np.bincount(generator.integers(n, size=n), minlength=n)[None] / n


def _first(passed: np.ndarray) -> np.ndarray:
    return np.where(passed.any(1), passed.argmax(1), passed.shape[1])
