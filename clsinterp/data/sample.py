"""Images to try things on, at hand wherever the package is: the sample that ships with it."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from clsinterp.data.images import decode
from clsinterp.data.photos import ZOO
from clsinterp.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import Int

SAMPLE = ZOO / "fashion-mnist-sample"


class SampleRows:
    """The rows of one of the sample's files: as much of `datasets.Dataset` as a `Split` needs, without that import's 0.7 s.

    Args:
        path: a parquet file with columns ``image`` (bytes and path) and ``label``, whose names stand in the file's metadata.

    Attributes:
        data: the table.
        cache_files: where it is stored.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.data: pa.Table = pq.ParquetFile(path).read().combine_chunks()  # read_table would import pandas
        self.cache_files = [{"filename": str(path)}]

    def __reduce__(self) -> tuple[Any, ...]:  # to a worker process goes the path
        return SampleRows, (Path(self.cache_files[0]["filename"]),)

    def __len__(self) -> int:
        return self.data.num_rows

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {name: self.data.column(name)[place].as_py() for name in self.data.column_names}

    @property
    def class_names(self) -> list[str]:
        """Names of the labels, in order."""
        facts = json.loads(self.data.schema.metadata[b"huggingface"])
        return list(facts["info"]["features"]["label"]["names"])


def sample_rows() -> dict[str, SampleRows]:
    """The splits of the sample: train and test."""
    return {split: SampleRows(SAMPLE / f"{split}.parquet") for split in ("train", "test")}


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
    rows = SampleRows(SAMPLE / "test.parquet").data.to_pylist()
    if not 1 <= n <= len(rows):
        raise RequestError(f"n={n} was given; the sample has 1 to {len(rows)} images.")
    by_class = defaultdict(list)
    for row in rows:
        by_class[row["label"]].append(row)
    turns = (row for turn in zip(*(by_class[c] for c in sorted(by_class)), strict=True) for row in turn)
    chosen = list(islice(turns, n))
    images = [decode(row["image"]["bytes"], f"sample/{i}") for i, row in enumerate(chosen)]
    return images, torch.tensor([row["label"] for row in chosen])
