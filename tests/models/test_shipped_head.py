"""The head that ships for the real backbone, which does not; and what the commands say with both."""

import runpy

import pytest
import torch
import transformers as hf
from command_line import invoke
from safetensors import safe_open

import clsinterp
from clsinterp.explore import server
from clsinterp.explore.code import code
from clsinterp.explore.how_to_read import how_to_read
from clsinterp.explore.page import facts
from clsinterp.explore.state import State
from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.shipped_head import shipped_head


def test_the_head_that_ships_is_one_of_that_backbone():
    path = shipped_head("zoo/dinov2-small")
    head = FittedHead.load(path)
    assert (head.source, head.image_size, head.readouts) == ("zoo/dinov2-small", 224, ("cls", "patch_mean"))
    assert head.weights[0].shape == (len(head.class_names), 2 * 384)
    card = (path.parent / "README.md").read_text()
    assert all(name in card for name in head.class_names)
    assert max(map(len, card.splitlines())) <= 130
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"weight.0", "bias.0"}


@pytest.fixture
def fetched(tmp_path_factory, monkeypatch):
    """A cache in which zoo/dinov2-small was fetched: random weights, two blocks, the real one's width and processor."""
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "zoo" / "dinov2-small"
    torch.manual_seed(0)
    config = hf.Dinov2Config(
        hidden_size=384, num_hidden_layers=2, num_attention_heads=6, image_size=518, patch_size=14, use_mask_token=False
    )
    hf.Dinov2Model(config).save_pretrained(folder)
    size, crop = {"shortest_edge": 256}, {"height": 224, "width": 224}
    hf.BitImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    monkeypatch.setenv("CLSINTERP_CACHE", str(cache))
    return cache


def test_lens_answers_with_the_heads_classes(fetched, tmp_path):
    out = tmp_path / "cat.html"
    code, text = invoke("lens", "zoo/dinov2-small", "zoo/photos/cat.jpg", "--out", out)
    assert code == 0, text
    model = clsinterp.VisionModel("zoo/dinov2-small", classifier="zoo/dinov2-small")
    view = clsinterp.lens(model, clsinterp.sample_photos()["cat"])
    assert view.grid == (16, 16)
    names = [model.class_names[i] for i in view.output.topk(3).indices]
    assert all(name in text for name in names)
    assert f"cat.jpg: {view.answer()}" in text
    assert view.answer().endswith("(of 10 classes)")
    assert view.answer(28) in out.read_text()
    code, text = invoke("lens", "zoo/dinov2-small", "zoo/photos/cat.jpg", "--image-size", "56", "--out", out)
    assert code == 0, text
    assert (
        clsinterp.lens(model, clsinterp.sample_photos()["cat"]).answer() not in text
    )  # a 4 x 4 grid sees another picture
    code, text = invoke("lens", "zoo/dinov2-small", "zoo/photos/dog.jpg", "--out", out)
    assert code == 2
    assert "zoo/photos/dog.jpg" in text


@pytest.fixture
def opened(monkeypatch):
    """What ``explore`` would serve: its session, and what it said."""
    from werkzeug.serving import BaseWSGIServer

    sessions, build = [], server.build

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", stop)
    monkeypatch.setattr(server, "build", lambda session, host: sessions.append(session) or build(session, host))

    def open_page(*args):
        code, text = invoke("explore", *args, "--no-open", "--port", "0")
        assert code == 0, text
        return sessions[-1], text

    return open_page


def test_the_page_opens_on_the_real_backbone_once_it_was_fetched(fetched, opened, tmp_path, monkeypatch):
    session, said = opened()
    assert session.model.checkpoint.source == "zoo/dinov2-small"
    assert [p.name for p in session.gallery.pictures] == [f"{n}.jpg" for n in clsinterp.sample_photos()]
    assert session.model.patch_grid(session.model.pixels(session.gallery.pictures[0].image())) == (16, 16)
    assert "zoo fetch" not in said
    told = str(how_to_read(session))
    assert f"the answer is among 10 classes: {', '.join(session.model.class_names)}." in told
    assert "surest answers have about 45%" in told
    assert facts(session)["quantity"] == "logit"
    text = code(session, State(image=session.gallery.pictures[0].key, layer=1), "a1b2c3", 1, 0)
    assert "model = VisionModel('zoo/dinov2-small', classifier='zoo/dinov2-small')" in text
    (tmp_path / "copied.py").write_text(text)
    monkeypatch.chdir(tmp_path)  # code that runs for anybody names no place of this machine
    shown = session.views(State(image=session.gallery.pictures[0].key, layer=1), "a1b2c3")[0]
    torch.testing.assert_close(runpy.run_path("copied.py")["output"], shown.output)
    finer, _ = opened("--image-size", "448")
    assert finer.model.image_size == 448
    assert finer.loaded_with["image_size"] == 448


def test_the_page_opens_on_the_small_one_before_and_says_how_to_get_the_other(tmp_path, monkeypatch, opened):
    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path))
    session, said = opened()
    assert session.model.checkpoint.source == "zoo/vit"
    assert "surest" not in str(how_to_read(session))
    assert facts(session)["quantity"] == "probability"
    assert session.gallery.pictures[0].image().size == (28, 28)
    assert "clsinterp zoo fetch dinov2-small (once, 90 MB)" in said
    photos, said = opened("zoo/vit", "--images", "zoo/photos")
    assert photos.gallery.pictures[0].name == "cat.jpg"
    assert "zoo fetch" not in said


def test_the_page_takes_class_names(opened):
    session, _ = opened("zoo/clip", "--classes", "a boot,a bag,a shirt")
    assert session.model.class_names == ["a boot", "a bag", "a shirt"]
    assert session.gallery.pictures[0].image().size == (28, 28)
