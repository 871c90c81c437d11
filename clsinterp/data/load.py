"""Labelled images from a folder, a file, the hub or a data frame, in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsinterp.data.sources import LABEL_COLUMNS, open_data, open_rows
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError

if TYPE_CHECKING:
    import datasets

IMAGE_COLUMNS = ("image", "img", "picture", "file", "file_name", "filename", "path")


def load_data(
    source: Any,
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
    """Labelled images for training and for testing.

    Each `Split` has ``image(i)`` (PIL), ``labels`` (class numbers), ``names`` (the same as names), ``class_names``, ``len``
    and ``table()``, and goes into `clsinterp.capture` as it is.

    Args:
        source: ``zoo`` (the shipped sample), a folder of class folders, a parquet or tar file, a hub id; or a pandas data
            frame with a row per image: a column of paths, PIL images or encoded bytes, and one of labels.
        train_split, test_split: names of the splits; by default ``train`` and the first of test, validation, val. Data
            with one split only (a data frame) is divided four to one, seeded and by class.
        seed: of the choice and the order.
        train_per_class, test_per_class: images of each class; default all.
        limit: only the first so many images of each split's order.
        image_column, label_column: where they cannot be told from the columns.

    Raises:
        RequestError: data, split or column not found, labels missing, a class with fewer images than asked.

    Example:
        >>> train, test = load_data("zoo", train_per_class=3, test_per_class=2)
        >>> len(train), len(test), test.names[0], test.image(0).size
        (30, 20, 't-shirt', (28, 28))
    """
    options: dict[str, Any] = {
        "seed": seed,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "limit": limit,
    }
    columns: dict[str, Any] = {"image_column": image_column, "label_column": label_column}
    if isinstance(source, str | Path):
        return open_data(str(source), train_split, test_split, **options, **columns)
    if not hasattr(source, "columns") or not hasattr(source, "to_dict"):
        raise RequestError(
            f"{type(source).__name__} was given as data; a folder, a file, a hub id or a pandas data frame is expected."
        )
    rows = _rows_of(source, _column(source, image_column, IMAGE_COLUMNS, "image"), label_column)
    return open_rows({"train": rows}, "the data frame", train_split, test_split, **options, label_column=label_column)


def _column(frame: Any, asked: str | None, usual: tuple[str, ...], what: str) -> str:
    names = [str(name) for name in frame.columns]
    found = asked if asked is not None else next((name for name in usual if name in names), None)
    if found not in names:
        said = f"{what}_column={asked!r} was given" if asked is not None else f"no column is called {', '.join(usual)}"
        raise RequestError(f"{said}; the data frame has: {', '.join(names)}. Name the column with {what}_column=.")
    return str(found)


def _rows_of(frame: Any, image: str, label: str | None) -> datasets.Dataset:
    import datasets

    label = _column(frame, label, LABEL_COLUMNS, "label")
    if image == label:
        raise RequestError(f"column {image!r} was given for images and for labels; name two.")
    images = [
        {"bytes": bytes(cell), "path": None} if isinstance(cell, bytes | bytearray) else
        str(cell) if isinstance(cell, Path) else cell
        for cell in frame[image].tolist()
    ]  # fmt: skip
    labels = frame[label].tolist()
    try:
        return datasets.Dataset.from_dict(
            {image: images}, features=datasets.Features({image: datasets.Image()})
        ).add_column(label, labels)
    except Exception as error:  # pyarrow raises several kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"cannot read the data frame: {first}") from error
