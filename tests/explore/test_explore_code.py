"""The code the explorer hands out runs and gives the numbers shown; its galleries; its command."""

import runpy
from pathlib import Path

import explore_session
import pytest
import tiny
import torch
from command_line import invoke
from explore_session import encoded
from PIL import Image

from clsinterp.errors import RequestError
from clsinterp.explore import code as code_module
from clsinterp.explore import gallery as gallery_module
from clsinterp.explore.gallery import Picture, from_data, from_folder
from clsinterp.explore.server import build, listen
from clsinterp.explore.state import State
from clsinterp.views.maps import values

TAB = "a1b2c3"


def keys(session):
    return [p.key for p in session.gallery.pictures]


# -- copy as code ------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Runs a script as a file: a trace reads its own source."""

    def script(text):
        file = tmp_path / f"copied{len(list(tmp_path.iterdir()))}.py"
        file.write_text(text)
        return runpy.run_path(str(file))

    return script


STATES = [
    {"quantity": quantity, "layer": 2, **change}
    for quantity, change in (
        ("probability", {}),
        ("logit", {"replace": "swap", "at": 1}),
        ("rank", {"replace": "mean", "at": 2}),
        ("identifiability", {"replace": "zero", "at": 3}),
        ("top1", {"replace": "noise", "at": 0}),
        ("entropy", {"replace": "swap", "at": -1, "cls_only": True}),
        ("attention", {"replace": "swap", "at": 1, "head": 1}),
        ("attention", {"replace": "swap", "at": 2, "cls_only": True}),
        ("attention", {}),
        ("similarity", {"replace": "swap", "at": 1}),
        ("probability", {"cls_only": True}),
    )
]


@pytest.mark.parametrize("change", STATES, ids=lambda c: "-".join(str(v) for v in c.values()))
@pytest.mark.parametrize("family", tiny.FIVE)
def test_the_copied_code_runs_and_gives_the_shown_numbers(model, folder, run, family, change):
    m = model(family)
    if change.get("cls_only") and not m.family.other_readouts:
        change = {**change, "cls_only": False}
    session = explore_session.Session(m, from_folder(folder / "test"), loaded_with={"device": "cpu"})
    a, b = keys(session)[3:5]
    state = State(image=a, donor=b, **change)
    views = session.views(state, TAB)
    scope = run(code_module.code(session, state, TAB, state.layer, 2))
    shown = values(views[-1], state.quantity, 2, state.head)[state.layer]
    torch.testing.assert_close(scope["numbers"].float(), shown, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scope["output"].float(), views[-1].output, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scope["view"].logits, views[-1].logits, atol=1e-4, rtol=1e-4)
    assert scope["figure"].layout.sliders[0].active == state.layer


def test_code_from_the_shipped_sample_and_from_uploads(model, run, tmp_path, monkeypatch):
    session = explore_session.Session(model("vit"), from_data("zoo"))
    assert len(session.gallery.pictures) == gallery_module.MAX_SHOWN
    state = State(image=keys(session)[5], replace="mean", at=1)
    scope = run(code_module.code(session, state, TAB, 3, 2))
    shown = session.views(state, TAB)[-1].probabilities[3, :, 2]
    torch.testing.assert_close(scope["numbers"], shown, atol=1e-4, rtol=1e-4)
    name = "a'); import os; os.remove('x').png"
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    picture = session.gallery.add(TAB, (tmp_path / name).read_bytes(), name)
    text = code_module.code(session, State(image=picture.key), TAB, 0, 0)
    assert run(text)["image"].filename == name


@pytest.mark.parametrize("change", [{}, {"replace": "swap", "at": 1}, {"replace": "mean", "at": 2}])
def test_code_from_the_photos_that_ship_names_no_path(model, run, change):
    session = explore_session.Session(model("vit"), from_folder(Path("zoo/photos")))
    a, b = keys(session)[:2]
    state = State(image=a, donor=b, **change)
    text = code_module.code(session, state, TAB, 2, 1)
    assert "Image" not in text
    shown = session.views(state, TAB)[-1].probabilities[2, :, 1]
    torch.testing.assert_close(run(text)["numbers"], shown, atol=1e-4, rtol=1e-4)


# -- galleries ---------------------------------------------------------------------


def test_folders_of_images(folder, tmp_path, caplog):
    shown = from_folder(folder / "test").pictures
    assert [p.name for p in shown] == sorted(p.name for p in shown)
    assert len(shown) == 42
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(RequestError, match="no image that can be read"):
        from_folder(tmp_path)
    assert "bad.png" in caplog.text
    with pytest.raises(RequestError, match="no folder"):
        from_folder(tmp_path / "nowhere")


def test_the_same_picture_has_the_same_key():
    data = encoded(Image.new("RGB", (9, 9)))
    assert Picture.of(data, "a", "").key == Picture.of(data, "b", "").key


# -- the command -------------------------------------------------------------------


def test_explore_refuses_what_cannot_be_served(checkpoint, folder, tmp_path, monkeypatch):
    from werkzeug.serving import BaseWSGIServer

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda self: pytest.fail("it was served"))
    images = ("--images", folder / "test", "--no-open")
    for args, said in (
        ((checkpoint("vit"), *images, "--data", "zoo"), "choose one"),
        ((checkpoint("vit"), "--images", tmp_path / "none"), "no folder"),
        ((checkpoint("dinov3"), *images), "no classifier"),
        ((tmp_path, *images), "config.json"),
        ((checkpoint("vit"), *images, "--port", "70000"), "--port"),
        ((checkpoint("vit"), *images, "--host", "no.such.host.invalid"), "no.such.host.invalid"),
    ):
        code, text = invoke("explore", *args)
        assert code == 2, text
        assert said in text
    with listen(build(explore_session.session_of(checkpoint, folder)), "127.0.0.1", 0) as taken:
        code, text = invoke("explore", checkpoint("vit"), *images, "--port", taken.port)
    assert code == 2
    assert f"port {taken.port}" in text


def test_listening_to_everyone_is_said_loudly(checkpoint, folder, monkeypatch):
    from werkzeug.serving import BaseWSGIServer

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", stop)
    args = ("explore", checkpoint("vit"), "--images", folder / "test", "--no-open", "--port", "0")
    code, text = invoke(*args, "--host", "0.0.0.0")
    assert code == 0, text
    assert "WARNING" in text
    code, text = invoke(*args)
    assert code == 0
    assert "WARNING" not in text
