"""The head that ships for the real backbone, which does not."""

from safetensors import safe_open

from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.shipped_head import shipped_head


def test_the_head_that_ships_is_one_of_that_backbone():
    path = shipped_head("zoo/dinov2-small")
    head = FittedHead.load(path)
    assert (head.source, head.image_size, head.readouts) == ("zoo/dinov2-small", 224, ("cls", "patch_mean"))
    assert head.weights[0].shape == (len(head.class_names), 2 * 384)
    assert all(name in (path.parent / "README.md").read_text() for name in head.class_names)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"weight.0", "bias.0"}
