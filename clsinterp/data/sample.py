"""Images to try things on, at hand wherever the package is: the sample and the photos that ship with it."""

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

ZOO = Path(__file__).parents[1] / "zoo"
SAMPLE, PHOTOS = ZOO / "fashion-mnist-sample", ZOO / "photos"


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


def sample_photos() -> dict[str, Image.Image]:
    """Photos that ship with the package, by name, at least 300 pixels on the shorter side.

    In the public domain; who made each stands in ``zoo/photos/README.md``. They have no labels: what they show is none of the
    classes of a head that ships. The command line takes them as ``zoo/photos/NAME.jpg``.

    Example:
        >>> {name: photo.size for name, photo in sample_photos().items()}
        {'cat': (451, 300), 'coffee': (480, 320), 'raccoon': (427, 320), 'rocket': (480, 320)}
    """
    return {path.stem: decode(path.read_bytes(), path.name) for path in sorted(PHOTOS.glob("*.jpg"))}


def shipped(path: Path) -> Path:
    """Where ``zoo/photos`` or ``zoo/photos/NAME.jpg`` lies in the package; any other path, and one that is there, as it is.

    Example:
        >>> shipped(Path("zoo/photos/cat.jpg")) == PHOTOS / "cat.jpg", shipped(Path("cat.jpg")).name
        (True, 'cat.jpg')
    """
    return ZOO / path.relative_to("zoo") if path.parts[:2] == ("zoo", "photos") and not path.exists() else path
