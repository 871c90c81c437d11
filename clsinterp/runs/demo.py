"""What the demo runs: a real pretrained checkpoint and five small ones, on the images that ship with the package."""

from clsinterp.models.checkpoint import zoo_names
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
