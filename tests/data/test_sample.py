"""What ships to try things on: the same images as the data called zoo, classes in turn; and photos."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clsinterp
from clsinterp.data.photos import PHOTOS, shipped
from clsinterp.errors import RequestError


def test_classes_take_turns_and_the_images_are_the_samples():
    from clsinterp.data.sources import open_data

    images, labels = clsinterp.sample_images(23)
    assert torch.equal(labels, torch.arange(23) % 10)
    _, test = open_data("zoo")
    known = {test.image(i).tobytes(): test.labels[i] for i in range(len(test))}
    assert [known[image.tobytes()] for image in images] == labels.tolist()
    assert len({image.tobytes() for image in images}) == 23
    assert len(clsinterp.sample_images(1000)[0]) == 1000


@pytest.mark.parametrize("n", [0, -1, 1001])
def test_more_than_there_are_is_refused(n):
    with pytest.raises(RequestError, match="1 to 1000"):
        clsinterp.sample_images(n)


def test_photos_are_large_enough_small_to_ship_and_of_known_origin():
    photos = clsinterp.sample_photos()
    card = (PHOTOS / "README.md").read_text()
    assert len(photos) == 4
    for name, photo in photos.items():
        assert min(photo.size) >= 300
        assert (PHOTOS / f"{name}.jpg").stat().st_size <= 40_000
        assert f"| `{name}.jpg` |" in card


def test_a_shipped_photo_is_found_by_its_name_and_a_file_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = Path("zoo/photos/cat.jpg")
    assert shipped(asked) == PHOTOS / "cat.jpg"
    asked.parent.mkdir(parents=True)
    asked.write_bytes(b"mine")
    assert shipped(asked) == asked


def test_the_sample_is_read_as_datasets_reads_it():
    from clsinterp.data.sample import SAMPLE
    from clsinterp.data.sources import open_data

    some = {"train_per_class": 3, "test_per_class": 2}
    for ours, theirs in zip(open_data("zoo", **some), open_data(str(SAMPLE), **some), strict=True):
        assert (ours.places, ours.sources, ours.labels) == (theirs.places, theirs.sources, theirs.labels)
        assert ours.class_names == theirs.class_names
        assert ours.fingerprint() == theirs.fingerprint()
        sent = pickle.loads(pickle.dumps(ours))  # to a worker process
        assert [sent.encoded(i) for i in range(len(sent))] == [theirs.encoded(i) for i in range(len(theirs))]
    with pytest.raises(RequestError, match="--image-column nope was given; the data has: image, label"):
        open_data("zoo", image_column="nope")


def test_the_sample_does_without_datasets():
    code = (
        "import sys; from clsinterp.console import quiet_libraries; from clsinterp.data.sources import open_data; "
        "quiet_libraries(); open_data('zoo', limit=8); print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
