"""``images.parquet`` with the swaps of an image side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clsinterp.sweeps.columns import parse


class ByImage:
    """The columns of a run's per-image table as arrays (image, swap), images in the test order.

    Args:
        images: ``images.parquet``: a row per image and swap.

    Attributes:
        n: images.
        names: of the columns.
    """

    def __init__(self, images: pa.Table) -> None:
        self._images = images
        index = images["index"].to_numpy()
        self._order = np.argsort(index, kind="stable")  # swaps of an image stay in their order
        self.n = len(np.unique(index))
        self.names: list[str] = images.column_names

    def column(self, name: str) -> np.ndarray:
        """A column, (image, swap)."""
        return self._images[name].to_numpy()[self._order].reshape(self.n, -1)

    def right(self, name: str) -> np.ndarray:
        """How often each image is right in a rank column, over its swaps: (image,)."""
        return (self.column(name) == 0).mean(1)

    def layers(self, curve: str) -> list[int]:
        """Layers from 0 on of the rank columns of `curve`, sorted."""
        found = [c for name in self.names if (c := parse(name)) and (c.kind, c.curve) == ("rank", curve)]
        return sorted(c.layers[0] for c in found if c.layers[0] >= 0)

    def labels(self) -> np.ndarray:
        """The label of each image, (image,)."""
        return self.column("label")[:, 0]

    def following(self, classes: Sequence[int]) -> np.ndarray:
        """How often each image would be right if the output followed its donor; without donors, if it were constant.

        Following the donor is to give the donor's intact answer. The constant is the most frequent class.

        Args:
            classes: for each label of the data, the classifier's class.
        """
        target = np.asarray(classes)[self.labels()]
        if self._images["donor"].null_count:
            return (target == np.bincount(target).argmax()).astype(np.float64)
        answer = self.column("answer_intact")[:, 0]
        places = np.empty(int(self.column("index").max()) + 1, np.int64)
        places[self.column("index")[:, 0]] = np.arange(self.n)
        return (answer[places[self.column("donor")]] == target[:, None]).mean(1)

    def of_majority(self) -> np.ndarray:
        """Whether each image has the most frequent label, (image,)."""
        label = self.labels()
        return (label == np.bincount(label).argmax()).astype(np.float64)
