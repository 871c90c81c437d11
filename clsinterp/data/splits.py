"""A split: labelled images in a seeded order that depends only on the seed and the names of the images."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsinterp.data.content import CONTENTS, SIZES, Memory, digests
from clsinterp.data.images import decode
from clsinterp.data.names import in_order
from clsinterp.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

HOLD_OUT = 5  # one image in five is for testing where the data has a single split


@dataclass(frozen=True)
class Split:
    """Images of one split, in their seeded order.

    Attributes:
        rows: the stored rows (`datasets.Dataset`, or the sample's), images not decoded.
        image_column: where the image is.
        places: for each image of the order, its row.
        sources: for each image, its file path (relative to the data) or row id.
        labels: for each image, its class in `class_names`.
        class_names: the classes of the data.
        skipped: sources of unreadable images that were left out.
        streamed: whether the rows came over the network.
    """

    rows: Any
    image_column: str
    places: list[int]
    sources: list[str]
    labels: list[int]
    class_names: list[str]
    skipped: tuple[str, ...] = ()
    streamed: bool = False

    @property
    def hashed(self) -> str:
        """What of the images `fingerprint` hashes."""
        return SIZES if self.streamed else CONTENTS

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        some = ", ".join(self.class_names[:5]) + (", .." if len(self.class_names) > 5 else "")
        return f"Split({len(self)} images, {len(self.class_names)} classes: {some})"

    @property
    def names(self) -> list[str]:
        """For each image, the name of its class."""
        return [self.class_names[label] for label in self.labels]

    def table(self) -> "pa.Table":
        """One row per image: ``source``, ``label``, ``class``; ``.to_pandas()`` makes a data frame of it."""
        import pyarrow as pa

        return pa.table({"source": self.sources, "label": self.labels, "class": self.names})

    def encoded(self, i: int) -> bytes:
        """The image file's bytes."""
        cell = self.rows[self.places[i]][self.image_column]
        if cell is None:
            raise RequestError(f"{self.sources[i]} has no image (the cell is empty).")
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()

    def image(self, i: int) -> Any:
        """Image `i` of the order as a PIL image in RGB.

        Raises:
            RequestError: unreadable; the message names the file.
        """
        try:
            data = self.encoded(i)
        except OSError as error:
            raise RequestError(f"cannot read image {self.sources[i]}: {error.strerror or error}.") from error
        return decode(data, self.sources[i])

    def keep(self, order: list[int]) -> "Split":
        """The images at `order`, in that order."""
        return replace(
            self,
            places=[self.places[i] for i in order],
            sources=[self.sources[i] for i in order],
            labels=[self.labels[i] for i in order],
        )

    def over(self, class_names: list[str]) -> "Split":
        """The same images with labels counted in `class_names`, which has all that they name."""
        place = {name: i for i, name in enumerate(class_names)}
        return replace(self, labels=[place[self.class_names[x]] for x in self.labels], class_names=class_names)

    def fingerprint(self, memory: Memory | None = None) -> str:
        """A hash of the names, labels and contents, in order; contents as `hashed` says.

        Args:
            memory: of contents that were hashed before.

        Raises:
            RequestError: an image that cannot be read.
        """
        column = self.rows.data.column(self.image_column)  # as it is stored: no image is copied to be hashed
        stored = [file["filename"] for file in self.rows.cache_files]
        memory = memory or Memory()
        contents = digests(self.sources, lambda i: column[self.places[i]], stored, memory, self.streamed)
        digest = hashlib.blake2b(digest_size=16)
        for source, label, content in zip(self.sources, self.labels, contents, strict=True):
            digest.update(f"{source}\0{label}\0".encode() + content)
        return digest.hexdigest()


def same_classes(train: Split, test: Split) -> tuple[Split, Split]:
    """Both splits over the union of their classes, numbers in numerical order."""
    if train.class_names == test.class_names:
        return train, test
    names = in_order({*train.class_names, *test.class_names})
    return train.over(names), test.over(names)


def _order(split: Split, seed: int) -> list[int]:
    """All images, sorted by a hash of seed and name: a shuffle that does not depend on the listing."""

    def key(i: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{split.sources[i]}".encode(), digest_size=16).digest()

    return sorted(range(len(split)), key=key)


def divide(whole: Split, seed: int) -> tuple[Split, Split]:
    """Training and test images of data with one split: every `HOLD_OUT`-th of each class, in seeded order, is for testing."""
    seen: Counter[int] = Counter()
    train: list[int] = []
    test: list[int] = []
    for i in _order(whole, seed):
        (test if seen[whole.labels[i]] % HOLD_OUT == 0 else train).append(i)
        seen[whole.labels[i]] += 1
    return whole.keep(train), whole.keep(test)


def choose(split: Split, seed: int, per_class: int | None, limit: int | None, what: str) -> Split:
    """The first `per_class` images of each class in seeded order, then the first `limit` of those; rows stored."""
    order = _order(split, seed)
    if per_class is not None:
        by_class: dict[int, list[int]] = defaultdict(list)
        for i in order:
            by_class[split.labels[i]].append(i)
        for label, name in enumerate(split.class_names):
            if len(by_class[label]) < per_class:
                raise RequestError(
                    f"class {name!r} has {len(by_class[label])} {what} images, but {per_class} per class were asked "
                    f"(--{what}-per-class)."
                )
        chosen = {i for rows in by_class.values() for i in rows[:per_class]}
        order = [i for i in order if i in chosen]
    if limit is not None:
        order = order[:limit]
    if not order:
        raise RequestError(f"the {what} split has no images.")
    return _store(split.keep(order))


def _store(split: Split) -> Split:
    """Streamed rows fetched once into the datasets cache, only those that were chosen; stored rows as they are."""
    if hasattr(split.rows, "__len__"):  # a stream has none
        return split
    import datasets

    wanted = {place: i for i, place in enumerate(sorted(split.places))}

    def rows(stream: Any, column: str, wanted: dict[int, int]) -> Iterator[dict[str, Any]]:
        for place, row in enumerate(stream.select_columns([column])):
            if place in wanted:
                yield {column: row[column]}
            if place >= max(wanted):
                return

    stored = datasets.Dataset.from_generator(
        rows,
        features=datasets.Features({split.image_column: datasets.Image(decode=False)}),
        gen_kwargs={"stream": split.rows, "column": split.image_column, "wanted": wanted},
    )
    return replace(split, rows=stored, places=[wanted[p] for p in split.places], streamed=True)
