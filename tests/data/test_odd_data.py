"""Data that are not quite right: said in a sentence, in time, with what would do."""

import io
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clsinterp.data import hub
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError


@pytest.fixture
def parquet(tmp_path, pictures):
    """labels -> a parquet file of as many images; columns ``picture`` and ``label``."""

    def write(labels):
        buffer = io.BytesIO()
        pictures(0, 0, 8).save(buffer, "PNG")
        cell = {"bytes": buffer.getvalue(), "path": None}
        pq.write_table(pa.table({"picture": [cell] * len(labels), "label": labels}), tmp_path / "data.parquet")
        return str(tmp_path / "data.parquet")

    return write


@pytest.fixture
def tree(tmp_path, pictures):
    """folder names -> a folder of them with four images each."""

    def write(*folders):
        for folder in folders:
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            for i in range(4):
                pictures(0, i, 8).save(tmp_path / "data" / folder / f"{i}.png")
        return str(tmp_path / "data")

    return write


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2**31 + 5], ["0", "1", "2147483653"]),
        ([True, False], ["False", "True"]),
        ([0.0, 3.0], ["0", "3"]),
        (["b", "a\nc"], ["a\nc", "b"]),
    ],
)
def test_odd_labels_are_the_classes_that_occur(parquet, labels, names):
    train, test = open_data(parquet(labels * 5), image_column="picture")
    assert train.class_names == names
    assert {*train.names, *test.names} == {*names}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, None], "row 1 of split 'train' has label None"),
        (["a", None], "row 1 of split 'train' has label None"),
        ([0.0, float("nan")], "row 1 of split 'train' has label nan"),
        ([0.5, 1.0], "a whole number"),
        ([-1, 0], "row 0 of split 'train' has label -1"),
        ([[0], [1]], "no names or numbers"),
    ],
)
def test_labels_that_are_none_are_refused(parquet, labels, said):
    with pytest.raises(RequestError) as error:
        open_data(parquet(labels * 5), image_column="picture")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image_column": "picture", "label_column": "picture"}, "for images and for labels"),
        ({"image_column": "label", "label_column": "picture"}, "holds no images but int64"),
        ({"image_column": "label"}, "for images and for labels"),
        ({"image_column": "x"}, "picture, label"),
    ],
)
def test_columns_of_the_wrong_kind_are_refused(parquet, columns, said):
    with pytest.raises(RequestError) as error:
        open_data(parquet([0, 1] * 5), **columns)
    assert said in str(error.value)


@pytest.mark.parametrize("folder", ["val", "valid", "dev", "validation"])
def test_a_split_goes_by_its_folders_name(tree, folder):
    data = tree("train/a", "train/b", f"{folder}/a", f"{folder}/b")
    for asked in (folder, "val", "validation"):
        _, test = open_data(data, test_split=asked)
        assert all(source.startswith(folder) for source in test.sources)
    with pytest.raises(RequestError, match="the data has"):
        open_data(data, test_split="test")


@pytest.mark.parametrize(
    ("folders", "said"),
    [((".",), "lie flat"), (("a",), "its folders are: a"), (("a\nb", "c"), r"line break in its name, 'a\nb'")],
)
def test_folders_without_classes_say_what_is_expected(tree, folders, said):
    with pytest.raises(RequestError) as error:
        open_data(tree(*folders))
    assert said in str(error.value)


@pytest.mark.parametrize("typed", ["fodler", "foldr"])
def test_a_mistyped_folder_is_told_in_time_with_what_is_near(tmp_path, monkeypatch, typed):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    with pytest.raises(RequestError, match=r"Near: folder\."):
        open_data(typed)
    with pytest.raises(RequestError, match=r"Near: .*folder\."):
        open_data(str(tmp_path / typed))
    assert time.monotonic() - begun < 10  # the hub's client alone takes 23 s


@pytest.mark.parametrize("typed", ["imagenete", "zooo"])
def test_names_this_package_knows_are_near_too(monkeypatch, typed):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(RequestError, match=r"Near: (imagenette|zoo)\."):
        open_data(typed)


@pytest.mark.parametrize("typed", ["~nobody.at.all/x", "a\0b", "x" * 5000, "./" + "x" * 5000])
def test_what_no_file_can_be_called_is_not_there(monkeypatch, typed):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(RequestError, match=r"there is no|cannot read"):
        open_data(typed)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    import socket

    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert not hub.reachable(0.2)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(RequestError, match="the hub cannot be reached"):
            open_data("someone/nothing")
        assert time.monotonic() - begun < 5
