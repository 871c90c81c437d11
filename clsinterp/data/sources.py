"""Labelled images from anywhere `datasets` reads: hub ids, class folders, parquet, webdataset tars, the shipped sample."""

import logging
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from clsinterp.data.hub import near, refuse_missing
from clsinterp.data.named import NAMED
from clsinterp.data.names import in_order, number
from clsinterp.data.sample import SAMPLE, SampleRows, sample_rows
from clsinterp.data.splits import HOLD_OUT, Split, choose, divide, same_classes
from clsinterp.data.unstable import with_features
from clsinterp.errors import RequestError

logger = logging.getLogger(__name__)

# Split folders go by several names, of which `datasets` keeps one.
SAME_SPLIT = {
    name: group
    for group in (
        ("train", "training"),
        ("test", "testing", "eval", "evaluation"),
        ("validation", "valid", "val", "dev"),
    )
    for name in group
}
LABEL_COLUMNS = ("label", "labels", "cls", "class", "fine_label", "target")


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
            tars), a parquet or tar file, a hub id, or a name of `clsinterp.data.named` (``imagenette``). Hub data is
            streamed, and only the chosen images are kept.
        train_split, test_split: names of the splits; by default ``train`` and the first of test, validation, val. Data
            with one split only is divided four to one, seeded and by class.
        seed: of the choice and the order.
        train_per_class, test_per_class: images of each class; default all.
        limit: only the first so many images of each split's order.
        image_column, label_column: where they cannot be told from the columns.

    Raises:
        RequestError: data, split or column not found, labels missing, a class with fewer images than asked.
    """
    # Other columns than the sample's own are refused as those of any data are.
    plain = data == "zoo" and image_column is None and label_column is None
    return open_rows(
        dict(sample_rows()) if plain else _load(data),
        data,
        train_split,
        test_split,
        seed=seed,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        limit=limit,
        image_column=image_column,
        label_column=label_column,
    )


def open_rows(
    found: dict[str, Any],
    data: str,
    train_split: str | None,
    test_split: str | None,
    *,
    seed: int,
    train_per_class: int | None,
    test_per_class: int | None,
    limit: int | None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> tuple[Split, Split]:
    """`open_data` from rows: split name -> `Dataset` or `IterableDataset`; `data` is what messages call them.

    Raises:
        RequestError: as `open_data`.
    """
    if train_split is None and test_split is None and len(found) == 1:
        (name, rows), *_ = found.items()
        whole = _index(rows, name, data, image_column, label_column)
        logger.warning("%s has one split only (%s): one image in %d is held out for testing.", data, name, HOLD_OUT)
        train, test = divide(whole, seed)
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
        train, test = same_classes(train, test)
    return (
        choose(train, seed, train_per_class, limit, "train"),
        choose(test, seed, test_per_class, limit, "test"),
    )


def _load(data: str) -> dict[str, Any]:
    """Split name -> rows, stored (`Dataset`) or streamed (`IterableDataset`)."""
    refuse_missing(data)
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
        if data in NAMED:
            return dict(datasets.load_dataset("parquet", data_files=NAMED[data], streaming=True))
        return dict(datasets.load_dataset(data, streaming=True))
    except RequestError:
        raise
    except Exception as error:  # datasets, pyarrow and the hub raise a dozen kinds here
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(
            f"cannot read data {data}: {first} Expected: zoo, a folder of class folders, parquet or webdataset "
            f"files, or a hub id.{near(data)}"
        ) from error


def _pick(found: dict[str, Any], asked: str | None, usual: tuple[str, ...]) -> str:
    if asked is not None:
        if asked not in found and len(same := [name for name in found if name in SAME_SPLIT.get(asked, ())]) == 1:
            return same[0]  # `datasets` calls a folder val validation
        if asked not in found:
            raise RequestError(f"split {asked!r} was given; the data has: {', '.join(found)}.")
        return asked
    for name in usual:
        if name in found:
            return name
    raise RequestError(
        f"no split called {' or '.join(usual)} in: {', '.join(found)}; name one with train_split= / test_split=."
    )


def _index(rows: Any, split: str, data: str, image_column: str | None, label_column: str | None) -> Split:
    """Every row of a split, in stored order; streamed rows are still streamed."""
    if isinstance(rows, SampleRows):
        return _whole(
            rows, "image", rows.data.column("label").to_pylist(), rows.class_names, _paths(rows, "image"), split, data
        )
    import datasets

    rows = with_features(rows)
    features = rows.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    image = _column(image_column, images, features, "image")
    labels_at = [c for c in LABEL_COLUMNS if c in features][:1]
    if label_column is None and list(features) == [image] and Path(data).expanduser().is_dir():
        raise RequestError(_no_classes(Path(data).expanduser()))
    label = _column(label_column, labels_at, features, "label")
    kind = features[label]
    if image == label:
        raise RequestError(
            f"column {image!r} was given for images and for labels; the data has: {', '.join(features)}."
        )
    if not (isinstance(features[image], datasets.Image) or _holds_images(features[image])):
        raise RequestError(f"image_column={image!r} was given, which holds no images but {_kind(features[image])}.")
    if not isinstance(kind, datasets.ClassLabel | datasets.Value):
        raise RequestError(f"label_column={label!r} was given, which holds no names or numbers but {_kind(kind)}.")
    rows = rows.cast_column(image, datasets.Image(decode=False))
    if isinstance(rows, datasets.IterableDataset):
        column = [row[label] for row in rows.select_columns([label])]
        paths: list[str | None] = [None] * len(column)
    else:
        column = list(rows[label])
        paths = _paths(rows, image)
    if isinstance(kind, datasets.ClassLabel):
        names, labels = list(kind.names), column
    else:
        labels, names = _plain_labels(column, split)
    return _whole(rows, image, labels, names, paths, split, data)


def _paths(rows: Any, image: str) -> list[str | None]:
    return pc.struct_field(rows.data.column(image), "path").to_pylist()


def _whole(
    rows: Any, image: str, labels: list[Any], names: list[str], paths: list[str | None], split: str, data: str
) -> Split:
    """A split of all rows, whose labels are looked at."""
    for place, value in enumerate(labels):
        if value is None or not 0 <= value < len(names):
            raise RequestError(
                f"row {place} of split {split!r} has label {value}, outside 0 to {len(names) - 1}; "
                "a split without labels cannot be used, name another."
            )
    whole = Split(rows, image, list(range(len(labels))), _sources(paths, split, data), labels, names)
    # Class folders come sorted as text, 10 before 2; a list of words that a data set declares keeps its order.
    return whole.over(in_order(names)) if None not in map(number, names) else whole


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


def _holds_images(kind: Any) -> bool:
    """Whether a column that is not declared as images can be one: encoded bytes, paths, or both."""
    if isinstance(kind, dict):
        return {"bytes", "path"} >= set(kind) != set()
    return getattr(kind, "dtype", None) in ("binary", "large_binary", "string", "large_string")


def _kind(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def _no_classes(folder: Path) -> str:
    """What to say of a folder in which no class could be told from another."""
    inside = sorted(p.name for p in folder.rglob("*") if p.is_dir())
    broken = [name for name in inside if "\n" in name or "\r" in name]
    if broken:
        return f"{folder} has a class folder with a line break in its name, {broken[0]!r}, which cannot be read; rename it."
    expected = "class folders are expected, at least two: DATA/CLASS/IMAGE, or DATA/train/CLASS/IMAGE and DATA/test/CLASS/IMAGE"
    found = (
        f"its folders are: {', '.join(inside[:5])}"
        if inside
        else "its images lie flat, with no folder that says their class"
    )
    return f"{folder} has images but no labels: {expected}; {found}."


def _plain_labels(column: list[Any], split: str) -> tuple[list[int], list[str]]:
    """Labels stored as plain numbers, names or truth values; the classes are those that occur."""
    written = [_written(value, row, split) for row, value in enumerate(column)]
    names = in_order(set(written))
    place = {name: i for i, name in enumerate(names)}
    return [place[name] for name in written], names


def _written(value: Any, row: int, split: str) -> str:
    if value is None or value != value or (isinstance(value, int) and value < 0):
        raise RequestError(
            f"row {row} of split {split!r} has label {value}; a split without labels cannot be used, name another."
        )
    if isinstance(value, float) and not value.is_integer():
        raise RequestError(f"row {row} of split {split!r} has label {value}; a class is a name or a whole number.")
    return str(int(value) if isinstance(value, float) else value)


def _sources(paths: list[str | None], split: str, data: str) -> list[str]:
    """File paths relative to the data where every row has one of its own, else ``split/row``."""
    known = [p for p in paths if p]
    if len(set(known)) < len(paths):
        return [f"{split}/{i:08d}" for i in range(len(paths))]
    root = Path(data).expanduser().resolve()
    return [str(Path(p).relative_to(root)) if Path(p).is_relative_to(root) else p for p in known]
