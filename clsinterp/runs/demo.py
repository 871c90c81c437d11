"""What the demo runs: a real pretrained checkpoint and five small ones, on the images that ship with the package or on photos."""

from typing import Any

from clsinterp.data.named import NAMED
from clsinterp.errors import RequestError
from clsinterp.models.source import zoo_names
from clsinterp.models.wheels import SOURCES, fetched
from clsinterp.runs.request import Request

SMALL = ("vit", "deit", "beit", "dinov2", "clip")  # in the order of the published figure
# 56 pixels are 4 x 4 patches: the images have 28, and a laptop does it in half a minute.
REAL = {"dinov2-small": {"image_size": 56, "train_per_class": 100, "test_per_class": 50}}


def requests() -> tuple[list[Request], list[str]]:
    """The runs of the demo, real checkpoints first, and the names of those that were not fetched yet."""
    here = [name for name in REAL if fetched(name)]
    missing = [f"zoo/{name}" for name in SOURCES if name not in here]
    real = [Request(model=f"zoo/{name}", data="zoo", **REAL[name]) for name in here]  # type: ignore[arg-type]
    small = [Request(model=f"zoo/{name}", data="zoo") for name in SMALL if name in zoo_names()]
    return [*real, *small], missing


# The README's first picture: photos at the size the checkpoint was made for, with a head fitted on them. Of a data set by
# name, as many images as were taken there; of a folder, all.
PHOTOS: dict[str, Any] = {"image_size": 224, "head": "fit"}
OF_A_DATA_SET: dict[str, Any] = {"train_per_class": 250, "test_per_class": 200}


def on_photos(data: str) -> Request:
    """The run behind the README's first picture, on `data`: ``imagenette`` or a folder of class folders.

    Raises:
        RequestError: its checkpoint was not fetched yet.
    """
    (name,) = REAL
    if not fetched(name):
        raise RequestError(f"the photos are for zoo/{name}, which is not here; to have it: clsinterp zoo fetch {name}")
    return Request(model=f"zoo/{name}", data=data, **PHOTOS, **(OF_A_DATA_SET if data in NAMED else {}))
