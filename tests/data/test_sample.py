"""The sample that ships: the same images as the data called zoo, classes in turn."""

import pytest
import torch

import clsinterp
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
