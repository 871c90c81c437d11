"""Small things that a newcomer tries: each works, or says what would."""

import numpy as np
import pytest
import tiny
import torch

import clsinterp
from clsinterp.errors import RequestError
from clsinterp.sweeps.patching import logit_difference
from clsinterp.views.maps import values

WIDE = 100


def test_hook_shorthands_are_the_names(model):
    m, x = model("vit"), tiny.pixels(2)
    zero = lambda z, hook: z * 0  # noqa: E731
    expected = m.run_with_hooks(x, [("blocks.1.attn.hook_z", zero)])
    assert torch.equal(m.run_with_hooks(x, [(("z", 1), zero)]), expected)
    assert torch.equal(m.run_with_hooks(x, [([("z", 1 - tiny.LAYERS)], zero)]), expected)
    for asked in (("z", 1), [("z", 1), "embed", ("scale", 0, "ln1"), ("scale", None, "ln_final")]):
        _, cache = m.run_with_cache(x, asked)
        assert len(cache) == (1 if isinstance(asked, tuple) else 4)
        assert cache["z", 1].shape == (2, 10, tiny.HEADS, tiny.WIDTH // tiny.HEADS)


@pytest.mark.parametrize("key", [("z", 99), ("y", 1), "nothing", 3, ("z", 1, 2, 3), ("z", True)])
def test_what_is_no_hook_is_refused(model, key):
    with pytest.raises(RequestError, match=r"hook"):
        model("vit").run_with_hooks(tiny.pixels(1), [([key], lambda z, hook: z)])


@pytest.mark.parametrize("family", tiny.BUILD)
def test_cfg_says_what_the_model_is(model, family):
    m = model(family)
    cfg = m.cfg
    _, cache = m.run_with_cache(tiny.pixels(1))
    assert cache["pre", 0].shape[1:] == (cfg.n_ctx, cfg.d_mlp)
    assert cache["q", 0].shape[2:] == (cfg.n_heads, cfg.d_head)
    assert (cfg.n_layers, cfg.d_model, cfg.family) == (tiny.LAYERS, tiny.WIDTH, family)
    assert (cfg.image_size, cfg.patch_size, cfg.dtype) == (tiny.SIZE, tiny.PATCH, torch.float32)
    assert cfg.n_classes == cfg.d_vocab_out == m.n_classes


def test_one_class_a_list_and_a_tensor_mean_the_same():
    logits = torch.randn(3, 7)
    expected = logits[:, 0] - logits[:, 3]
    for right, wrong in ((0, 3), ([0] * 3, [3] * 3), (torch.tensor([0] * 3), 3), (np.zeros(3, int), torch.tensor(3))):
        assert torch.equal(logit_difference(right, wrong)(logits), expected)


@pytest.mark.parametrize(
    ("classes", "said"),
    [("sandal", "model.class_names"), (0.5, "class numbers"), ([0, 1], "2 classes were given for 3"), (7, "0 to 6"), (-1, "-1")],
)  # fmt: skip
def test_what_is_no_class_is_refused(classes, said):
    with pytest.raises(RequestError) as error:
        logit_difference(classes, 0)(torch.randn(3, 7))
    assert said in str(error.value)


def test_classes_go_by_name(model):
    view = clsinterp.lens(model("vit"), tiny.pixels(1)[0])
    for name in ("class 3", "Class_3", "3"):
        assert torch.equal(values(view, "logit", name), values(view, "logit", 3))
    assert view.figure(class_index="class 3").data[0].z == view.figure(class_index=3).data[0].z
    for asked, said in (("clas 3", "near: class 3"), (7, "classes 0 to 6"), (-1, "classes 0 to 6")):
        with pytest.raises(RequestError) as error:
            view.figure(class_index=asked)
        assert said in str(error.value)


def test_arrays_are_pictures(model, pictures):
    m = model("vit")
    pils = [pictures(i, i) for i in range(3)]
    expected = m.pixels(pils)
    arrays = [np.asarray(p) for p in pils]
    for given in (arrays, np.stack(arrays)):
        assert torch.equal(m.pixels(given), expected)
        with torch.no_grad(), m.trace(given):
            out = m.logits.save()
        assert len(out) == 3
    assert torch.equal(m.pixels(arrays[0]), expected[:1])
    grey = np.asarray(pils[0].convert("L"))
    assert torch.equal(m.pixels(grey), m.pixels(pils[0].convert("L")))
    assert torch.equal(m.pixels(grey[..., None]), m.pixels(grey))


@pytest.mark.parametrize(
    "given",
    [
        torch.rand(2, 3, 24, 24) * 255,
        torch.zeros(2, 3, 24, 24, dtype=torch.uint8),
        [torch.rand(3, 24, 24) * 255],
        np.zeros((24, 24, 3), np.float32),
        np.zeros((3, 24, 24), np.uint8),
        np.zeros((2, 2, 24, 24, 3), np.uint8),
    ],
)
def test_pixels_that_nobody_normalised_are_refused(model, given):
    with pytest.raises(RequestError, match="uint8"):
        model("vit").pixels(given)


def test_reprs_fit_a_screen(model):
    m, x = model("vit"), tiny.pixels(2)
    _, cache = m.run_with_cache(x)
    train, _ = clsinterp.load_data("zoo", limit=20)
    for thing in (cache, clsinterp.lens(m, x[0]), train):
        lines = repr(thing).splitlines()
        assert len(lines) <= 8
        assert max(map(len, lines)) <= WIDE
    assert "hook_embed (2, 9, 32)" in repr(cache)
    assert f"{len(cache)} activations" in repr(cache)
