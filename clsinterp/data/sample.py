"""Images to try things on, at hand wherever the package is: the sample that ships with it."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from clsinterp.data.images import decode
from clsinterp.errors import RequestError

if TYPE_CHECKING:
    from jaxtyping import Int

SAMPLE = Path(__file__).parents[1] / "zoo" / "fashion-mnist-sample"


def sample_images(n: int = 8) -> tuple[list[Image.Image], Int[Tensor, " n"]]:
    """`n` test images of the sample that ships with the package, and their labels.

    Fashion-MNIST at 28 x 28 pixels. The classes take turns: image i is of class i % 10, and the labels are classes of
    ``zoo/vit`` and its siblings, whose names are in ``model.class_names``.

    Raises:
        RequestError: `n` is below 1, or more than there are (1,000).

    Example:
        >>> images, labels = sample_images(4)
        >>> images[0].size, labels
        ((28, 28), tensor([0, 1, 2, 3]))
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(SAMPLE / "test.parquet").to_pylist()
    if not 1 <= n <= len(rows):
        raise RequestError(f"n={n} was given; the sample has 1 to {len(rows)} images.")
    by_class = defaultdict(list)
    for row in rows:
        by_class[row["label"]].append(row)
    turns = (row for turn in zip(*(by_class[c] for c in sorted(by_class)), strict=True) for row in turn)
    chosen = list(islice(turns, n))
    images = [decode(row["image"]["bytes"], f"sample/{i}") for i, row in enumerate(chosen)]
    return images, torch.tensor([row["label"] for row in chosen])
