import io
import shutil
import tarfile
from collections import Counter, defaultdict

import datasets
import pytest
import tiny
import torch

from clsinterp.data.batches import batches, without_unreadable
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError
from clsinterp.vision_model import VisionModel


def counts(split):
    return sorted(Counter(split.labels).values())


def test_class_folders_in_split_folders(folder):
    train, test = open_data(str(folder))
    assert (len(train), len(test)) == (84, 42)
    assert train.class_names == [f"class_{i}" for i in range(7)]
    for i in (0, 20):
        assert train.sources[i].startswith(f"train/class_{train.labels[i]}/")
    assert train.labels != sorted(train.labels)  # the order is shuffled


def test_the_choice_depends_on_seed_and_names_only(folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "elsewhere")
    first, second = (open_data(str(f), train_per_class=5)[0] for f in (folder, again))
    assert (first.sources, first.labels) == (second.sources, second.labels)
    assert first.fingerprint() == second.fingerprint()
    assert counts(first) == [5] * 7
    other = open_data(str(folder), train_per_class=5, seed=1)[0]
    assert set(other.sources) != set(first.sources)
    # a larger choice holds the smaller one, and --limit takes the first of the order
    larger = open_data(str(folder), train_per_class=8)[0]
    assert set(first.sources) < set(larger.sources)
    assert open_data(str(folder), limit=9)[0].sources == open_data(str(folder))[0].sources[:9]


def test_class_folders_without_splits_are_divided_by_class(folder):
    train, test = open_data(str(folder / "train"))
    assert (len(train), len(test)) == (63, 21)
    assert counts(test) == [3] * 7
    assert not set(train.sources) & set(test.sources)


@pytest.fixture
def parquet(folder, tmp_path):
    found = datasets.load_dataset(str(folder))
    for name, rows in found.items():
        rows.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    return tmp_path


def test_parquet_gives_the_same_pixels(folder, parquet):
    a, b = open_data(str(folder))[1], open_data(str(parquet))[1]
    assert len(a) == len(b)
    assert b.class_names == a.class_names
    by_source = {s.split("/")[-1] + str(a.labels[i]): a.image(i).tobytes() for i, s in enumerate(a.sources)}
    for i in range(len(b)):
        assert b.image(i).tobytes() in by_source.values()


def test_a_single_parquet_file(parquet):
    train, test = open_data(str(parquet / "train-00000-of-00001.parquet"))
    assert len(train) + len(test) == 84


def test_webdataset_tars(folder, tmp_path):
    for split in ("train", "test"):
        with tarfile.open(tmp_path / f"{split}-000.tar", "w") as tar:
            for label in range(7):
                for i, file in enumerate(sorted((folder / split / f"class_{label}").iterdir())):
                    for ending, data in (("png", file.read_bytes()), ("cls", str(label).encode())):
                        info = tarfile.TarInfo(f"{label}_{i:03d}.{ending}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
    train, test = open_data(str(tmp_path))
    assert (len(train), len(test)) == (84, 42)
    assert counts(test) == [6] * 7
    assert test.class_names == [str(i) for i in range(7)]
    assert test.image(0).size == (30, 30)


def test_hub_ids_are_streamed_and_only_the_choice_is_kept(folder, parquet, monkeypatch):
    asked = []
    real = datasets.load_dataset

    def hub(path, *args, **kwargs):
        asked.append((path, kwargs))
        return real(str(parquet), *args, **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    train, test = open_data("someone/garments", train_per_class=3, test_per_class=2)
    assert asked == [("someone/garments", {"streaming": True})]
    assert (len(train.rows), len(test.rows)) == (21, 14)
    local = open_data(str(parquet), train_per_class=3, test_per_class=2)[0]
    assert train.labels != sorted(train.labels)
    assert counts(train) == counts(local) == [3] * 7
    images = {local_image.tobytes() for local_image in (open_data(str(folder))[0].image(i) for i in range(84))}
    assert all(train.image(i).tobytes() in images for i in range(21))
    classes = {n: i for i, n in enumerate(open_data(str(folder))[0].class_names)}
    assert set(classes) == set(train.class_names)


def test_plain_integer_and_string_labels(folder, tmp_path):
    rows = datasets.load_dataset(str(folder))["train"]
    names = rows.features["label"].names
    for kind, values in (("ints", list(rows["label"])), ("strings", [names[x] for x in rows["label"]])):
        plain = rows.remove_columns("label").add_column("label", values)
        file = tmp_path / f"{kind}.parquet"
        plain.to_parquet(file)
        train, _ = open_data(str(file))
        assert train.class_names == ([str(i) for i in range(7)] if kind == "ints" else names)


# -- numbers as names ----------------------------------------------------------------


def numbered(folder, root, numbers):
    """The class folders of `folder` under other names: `numbers`, in the order of the classes."""
    for split in ("train", "test"):
        for i, n in enumerate(numbers):
            shutil.copytree(folder / split / f"class_{i}", root / split / str(n))
    return root


def images_of(split):
    """Class name -> the pixels of its images."""
    found = defaultdict(set)
    for i, label in enumerate(split.labels):
        found[split.class_names[label]].add(split.image(i).tobytes())
    return found


NUMBERS = [8, 9, 10, 11, 99, 100, 101]


@pytest.mark.parametrize("kind", ["folders", "parquet of folders", "strings", "integers"])
def test_numbers_as_class_names_are_sorted_by_value(folder, tmp_path, kind):
    root = numbered(folder, tmp_path / "folders", NUMBERS)
    if kind != "folders":
        found, root = datasets.load_dataset(str(root)), tmp_path / "parquet"
        root.mkdir()
        for name, rows in found.items():
            names = rows.features["label"].names
            assert names != sorted(names, key=int)
            if kind in ("strings", "integers"):
                values = [names[x] if kind == "strings" else int(names[x]) for x in rows["label"]]
                rows = rows.remove_columns("label").add_column("label", values)
            rows.to_parquet(root / f"{name}-00000-of-00001.parquet")
    named = open_data(str(folder))
    for split, of_words in zip(open_data(str(root)), named, strict=True):
        assert split.class_names == [str(n) for n in NUMBERS]
        pictures, expected = images_of(split), images_of(of_words)
        assert pictures == {str(n): expected[f"class_{i}"] for i, n in enumerate(NUMBERS)}


def test_numbers_of_two_splits_are_united_by_value(folder, tmp_path):
    root = numbered(folder, tmp_path, NUMBERS)
    shutil.rmtree(root / "test" / "9")
    shutil.rmtree(root / "train" / "100")
    train, test = open_data(str(root))
    assert train.class_names == test.class_names == [str(n) for n in NUMBERS]
    assert sorted(set(train.labels)) == [0, 1, 2, 3, 4, 6]
    assert sorted(set(test.labels)) == [0, 2, 3, 4, 5, 6]


def test_requests_that_cannot_be_met(folder, parquet, tmp_path):
    for kwargs, text in (
        ({"train_per_class": 13}, "class 'class_0' has 12 train images, but 13 per class were asked"),
        ({"test_split": "holdout"}, "split 'holdout' was given; the data has: train, test"),
        ({"train_split": "test"}, "both training and testing"),
        ({"label_column": "genus"}, "--label-column genus was given; the data has: image, label"),
    ):
        with pytest.raises(RequestError, match=text):
            open_data(str(folder), **kwargs)
    for data, text in (("./nowhere", "no file or folder"), (str(tmp_path / "x.csv"), "no file or folder")):
        with pytest.raises(RequestError, match=text):
            open_data(data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="cannot read data"):
        open_data(str(tmp_path / "empty"))


def test_rows_without_labels_are_refused(folder, tmp_path):
    rows = datasets.load_dataset(str(folder))["train"]
    rows.to_parquet(tmp_path / "train.parquet")
    unlabelled = rows.map(lambda r: {"label": -1}, features=rows.features)
    unlabelled.to_parquet(tmp_path / "test.parquet")
    with pytest.raises(RequestError, match="row 0 of split 'test' has label -1"):
        open_data(str(tmp_path))


def test_ambiguous_columns_must_be_named(folder, tmp_path):
    rows = datasets.load_dataset(str(folder))["train"]
    rows.map(lambda r: {"second": r["image"]}).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(RequestError, match="cannot tell which column is the image"):
        open_data(str(tmp_path / "two.parquet"))
    assert open_data(str(tmp_path / "two.parquet"), image_column="second")[0].image_column == "second"


# -- loading pixels ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_processors_pixels_in_order(folder, model, workers):
    m: VisionModel = model("vit")
    _, test = open_data(str(folder))
    found = list(batches(test, m.image_processor, 16, workers=workers))
    assert [len(b) for b in found] == [16, 16, 10]
    expected = m.pixels([test.image(i) for i in range(len(test))])
    assert torch.equal(torch.cat(found), expected)
    assert torch.equal(torch.cat(list(batches(test, m.image_processor, 16, first=1, workers=workers))), expected[16:])


@pytest.fixture
def spoiled(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "spoiled")
    bad = root / "test" / "class_3" / "test2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    (root / "test" / "class_5" / "test0.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_named_or_skipped_and_counted(spoiled, workers):
    _, test = open_data(str(spoiled))
    with pytest.raises(RequestError, match=r"cannot read image test/class_\d/test\d\.png"):
        list(batches(test, tiny.processor(), 16, workers=workers))
    good = without_unreadable(test, workers=workers)
    assert sorted(good.skipped) == ["test/class_3/test2.png", "test/class_5/test0.png"]
    assert len(good) == 40
    assert sum(len(b) for b in batches(good, tiny.processor(), 16, workers=workers)) == 40
