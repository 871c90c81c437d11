"""Labelled images from anywhere `datasets` reads: hub ids, class folders, parquet, webdataset tars, the shipped sample.

A split becomes a list of rows in a seeded order that depends only on the seed and the names of the images, never on
the order in which files are listed.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from clsinterp.errors import RequestError
from clsinterp.images import decode

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "zoo" / "fashion-mnist-sample"
LABEL_COLUMNS = ("label", "labels", "cls", "class", "fine_label", "target")
HOLD_OUT = 5  # one image in five is for testing where the data has a single split


@dataclass(frozen=True)
class Split:
    """Images of one split, in their seeded order.

    Attributes:
        rows: the stored rows (`datasets.Dataset`), images not decoded.
        image_column: where the image is.
        places: for each image of the order, its row.
        sources: for each image, its file path (relative to the data) or row id.
        labels: for each image, its class in `class_names`.
        class_names: the classes of the data.
        skipped: sources of unreadable images that were left out.
    """

    rows: Any
    image_column: str
    places: list[int]
    sources: list[str]
    labels: list[int]
    class_names: list[str]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.places)

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

    def fingerprint(self) -> str:
        """A hash of the names and labels, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for source, label in zip(self.sources, self.labels, strict=True):
            digest.update(f"{source}\0{label}\0".encode())
        return digest.hexdigest()


def open_data(
    data: str,
    train_split: str | None = None,
    test_split: str | None = None,
    *,
    seed: int = 0,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
    limit: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> tuple[Split, Split]:
    """The train and the test split of `data`, each a seeded, stratified choice in seeded order.

    Args:
        data: ``zoo`` (the shipped sample), a folder (class folders, with or without split folders; parquet; webdataset
            tars), a parquet or tar file, or a hub id. Hub data is streamed, and only the chosen images are kept.
        train_split, test_split: names of the splits; by default ``train`` and the first of test, validation, val that
            has labels. Data with one split only is divided four to one, seeded and by class.
        seed: of the choice and the order.
        train_per_class, test_per_class: images of each class; default all.
        limit: only the first so many images of each split's order.
        image_column, label_column: where they cannot be told from the columns.

    Raises:
        RequestError: data, split or column not found, labels missing, a class with fewer images than asked.
    """
    found = _load(data)
    if train_split is None and test_split is None and len(found) == 1:
        (name, rows), *_ = found.items()
        whole = _index(rows, name, data, image_column, label_column)
        logger.warning("%s has one split only (%s): one image in %d is held out for testing.", data, name, HOLD_OUT)
        train, test = _divide(whole, seed)
    else:
        names = (
            _pick(found, train_split, ("train", "training")),
            _pick(found, test_split, ("test", "validation", "val")),
        )
        if names[0] == names[1]:
            raise RequestError(
                f"split {names[0]!r} was given for both training and testing; probes would be scored on what they saw."
            )
        train, test = (_index(found[name], name, data, image_column, label_column) for name in names)
        train, test = _same_classes(train, test)
    return (
        _choose(train, seed, train_per_class, limit, "train"),
        _choose(test, seed, test_per_class, limit, "test"),
    )


def _load(data: str) -> dict[str, Any]:
    """Split name -> rows, stored (`Dataset`) or streamed (`IterableDataset`)."""
    import datasets

    path = SAMPLE if data == "zoo" else Path(data).expanduser()
    try:
        if path.is_dir():
            return dict(datasets.load_dataset(str(path)))
        if path.is_file():
            kind = {".parquet": "parquet", ".tar": "webdataset"}.get(path.suffix)
            if kind is None:
                raise RequestError(
                    f"{data} is a {path.suffix or 'nameless'} file; a folder, .parquet or .tar is expected."
                )
            return dict(datasets.load_dataset(kind, data_files=str(path)))
        if data.startswith((".", "/", "~")) or data.count("/") > 1:
            raise RequestError(f"there is no file or folder {data}.")
        return dict(datasets.load_dataset(data, streaming=True))
    except RequestError:
        raise
    except Exception as error:  # datasets, pyarrow and the hub raise a dozen kinds here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"cannot read data {data}: {first} Expected: zoo, a folder of class folders, parquet or webdataset "
            "files, or a hub id."
        ) from error


def _pick(found: dict[str, Any], asked: str | None, usual: tuple[str, ...]) -> str:
    if asked is not None:
        if asked not in found:
            raise RequestError(f"split {asked!r} was given; the data has: {', '.join(found)}.")
        return asked
    for name in usual:
        if name in found:
            return name
    raise RequestError(
        f"no split called {' or '.join(usual)} in: {', '.join(found)}; name one with --train-split / --test-split."
    )


def _index(rows: Any, split: str, data: str, image_column: str | None, label_column: str | None) -> Split:
    """Every row of a split, in stored order; streamed rows are still streamed."""
    import datasets

    if rows.features is None:
        rows = rows._resolve_features()
    features = rows.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    image = _column(image_column, images, features, "image")
    label = _column(label_column, [c for c in LABEL_COLUMNS if c in features][:1], features, "label")
    kind = features[label]
    rows = rows.cast_column(image, datasets.Image(decode=False))
    if isinstance(rows, datasets.IterableDataset):
        column = [row[label] for row in rows.select_columns([label])]
        paths: list[str | None] = [None] * len(column)
    else:
        column = list(rows[label])
        paths = pc.struct_field(rows.data.column(image), "path").to_pylist()
    if isinstance(kind, datasets.ClassLabel):
        names, labels = list(kind.names), column
    else:
        labels, names = _plain_labels(column, split)
    for place, value in enumerate(labels):
        if value is None or not 0 <= value < len(names):
            raise RequestError(
                f"row {place} of split {split!r} has label {value}, outside 0 to {len(names) - 1}; "
                "a split without labels cannot be used, name another."
            )
    return Split(rows, image, list(range(len(labels))), _sources(paths, split, data), labels, names)


def _column(asked: str | None, candidates: list[str], features: Any, what: str) -> str:
    if asked is not None:
        if asked not in features:
            raise RequestError(f"--{what}-column {asked} was given; the data has: {', '.join(features)}.")
        return asked
    if len(candidates) != 1:
        raise RequestError(
            f"cannot tell which column is the {what}: {', '.join(features)}; name it with --{what}-column."
        )
    return candidates[0]


def _plain_labels(column: list[Any], split: str) -> tuple[list[int], list[str]]:
    """Labels stored as plain integers (class indices) or strings (class names)."""
    if any(value is None for value in column):
        raise RequestError(f"row {column.index(None)} of split {split!r} has no label.")
    if all(isinstance(value, int) for value in column):
        return column, [str(i) for i in range(max(column, default=-1) + 1)]
    names = sorted({str(value) for value in column})
    place = {name: i for i, name in enumerate(names)}
    return [place[str(value)] for value in column], names


def _sources(paths: list[str | None], split: str, data: str) -> list[str]:
    """File paths relative to the data where every row has one of its own, else ``split/row``."""
    known = [p for p in paths if p]
    if len(set(known)) < len(paths):
        return [f"{split}/{i:08d}" for i in range(len(paths))]
    root = Path(data).expanduser().resolve()
    return [str(Path(p).relative_to(root)) if Path(p).is_relative_to(root) else p for p in known]


def _same_classes(train: Split, test: Split) -> tuple[Split, Split]:
    if train.class_names == test.class_names:
        return train, test
    names = sorted({*train.class_names, *test.class_names}, key=lambda n: (len(n), n) if n.isdigit() else (0, n))
    place = {name: i for i, name in enumerate(names)}

    def moved(split: Split) -> Split:
        return replace(split, labels=[place[split.class_names[x]] for x in split.labels], class_names=names)

    return moved(train), moved(test)


def _order(split: Split, seed: int) -> list[int]:
    """All images, sorted by a hash of seed and name: a shuffle that does not depend on the listing."""

    def key(i: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{split.sources[i]}".encode(), digest_size=16).digest()

    return sorted(range(len(split)), key=key)


def _divide(whole: Split, seed: int) -> tuple[Split, Split]:
    seen: Counter[int] = Counter()
    train: list[int] = []
    test: list[int] = []
    for i in _order(whole, seed):
        (test if seen[whole.labels[i]] % HOLD_OUT == 0 else train).append(i)
        seen[whole.labels[i]] += 1
    return whole.keep(train), whole.keep(test)


def _choose(split: Split, seed: int, per_class: int | None, limit: int | None, what: str) -> Split:
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
    import datasets

    if isinstance(split.rows, datasets.Dataset):
        return split
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
    return replace(split, rows=stored, places=[wanted[p] for p in split.places])
