"""The explorer's page in a real browser: looking, picking, uploading."""

import re

import pytest
import tiny
from explore_browser import (
    LAYERS,
    NASTY,
    address,
    agree,
    bars,
    browser,
    context,
    drawing,
    gallery,
    heading,
    keys,
    page,
    point_at,
    ready,
    serve,
    session,
    until,
)
from PIL import Image
from playwright.sync_api import expect

from clsinterp.checkpoint import zoo_names
from clsinterp.explore.session import Session
from clsinterp.lens_maps import values
from clsinterp.lens_view import lens
from clsinterp.model import VisionModel

# -- looking -----------------------------------------------------------------------


def test_open_point_and_slide_by_keyboard(page, address, session):
    ready(page, address)
    view = lens(session.model, drawing(0))
    last = LAYERS - 1
    assert page.title() == "clsinterp explore"
    agree(bars(page), view, last, 0)
    output = view.output.softmax(-1).topk(5)
    assert [row[0] for row in bars(page, "#output-panel")] == output.indices.tolist()
    assert [row[1] for row in bars(page, "#output-panel")] == pytest.approx(output.values.tolist(), rel=1e-4)
    for token in (1, 25, 49, 0):
        point_at(page, view, token)
        expect(page.locator("#token-panel h2")).to_have_text(heading(view, token))
        agree(bars(page), view, last, token)
    # slider by keyboard: the map, the panel and the address follow, and the server is asked nothing
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "_dash-update" in r.url else None)
    page.get_by_role("slider").focus()
    for layer in (10, 9):
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#token-panel .fine").first).to_contain_text(f"layer {layer}")
    agree(bars(page), view, 9, 0)
    drawn = page.evaluate("document.querySelector('#maps .js-plotly-plot').data[0].z.flat()")
    assert drawn == pytest.approx(values(view, "probability")[9, 1:].tolist(), rel=1e-4, abs=1e-6)
    assert "layer=9" in page.url
    # patches by keyboard
    page.locator("#maps-box").focus()
    for key, token in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowDown", 9), ("p", 0), ("P", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        expect(page.locator("#token-panel h2")).to_have_text(heading(view, token))
    agree(bars(page), view, 9, 0)
    assert asked == []
    frame, box = page.locator("#maps .pick").first.bounding_box(), page.locator("#maps").bounding_box()
    assert box["x"] <= frame["x"] <= box["x"] + box["width"]


@pytest.mark.parametrize("family", tiny.FIVE)
def test_the_numbers_under_the_pointer_are_those_of_lens(page, serve, model, family):
    """Three patches and every prefix token, for each family; the zoo's checkpoints where they are there."""
    m = VisionModel(f"zoo/{family}", device="cpu") if family in zoo_names() else model(family)
    ready(page, serve(Session(m, gallery(2))), "theme=dark&layer=2&quantity=logit")
    view = lens(m, drawing(0))
    n = len(view.tokens)
    wanted = values(view, "logit")[2]
    for token in {*range(view.n_prefix), view.n_prefix, (n + view.n_prefix) // 2, n - 1}:
        point_at(page, view, token)
        expect(page.locator("#token-panel h2")).to_have_text(heading(view, token))
        agree(bars(page), view, 2, token)
        expect(page.locator("#maps .hoverlayer")).to_contain_text(f"{view.tokens[token]}: {float(wanted[token]):.3f}")


def test_every_quantity_class_and_head(page, address, session):
    a = keys(session)[0]
    view = lens(session.model, drawing(0))
    for query, wanted in (
        ("quantity=entropy", values(view, "entropy")),
        ("quantity=attention&head=2", values(view, "attention", head=2)),
        ("quantity=identifiability&class=4", values(view, "identifiability", 4)),
    ):
        ready(page, address, f"image={a}&layer=3&{query}")
        drawn = page.evaluate("document.querySelector('#maps .js-plotly-plot').data[0].z.flat()")
        assert drawn == pytest.approx(wanted[3, 1:].tolist(), rel=1e-4, abs=1e-6)
    # by hand: the dropdown
    page.locator("#quantity").click()
    page.get_by_role("option", name="Most probable class").click()
    expect(page.locator("#maps .annotation-text")).to_contain_text("most probable class")
    assert "quantity=top1" in page.url


def test_play_runs_through_the_layers(page, address):
    ready(page, address, "layer=3")
    page.get_by_role("button", name="Play the layers").click()
    expect(page.locator("#token-panel .fine").first).to_contain_text("layer 5")
    page.get_by_role("button", name="Play the layers").click()
    expect(page.locator("#play")).to_have_text("Play")


# -- images ------------------------------------------------------------------------


def test_pick_and_upload_good_and_bad_files(page, address, session, tmp_path):
    ready(page, address, "layer=4&token=30")
    page.locator("#gallery .thumb").nth(2).click()
    expect(page.locator("#current-name")).to_contain_text("drawing 2")
    until(page, f"window.clsinterp.view && window.clsinterp.view.image === '{keys(session)[2]}'")
    agree(bars(page), lens(session.model, drawing(2)), 4, 30)
    # an upload: its numbers, at the same layer and token, with nothing left of the image before
    name = f"{NASTY.replace('/', '')}.png"
    drawing(99).resize((90, 60)).save(tmp_path / name)
    page.set_input_files("#file", tmp_path / name)
    expect(page.locator("#current-name")).to_have_text(name)
    until(page, f"!['{keys(session)[2]}'].includes(window.clsinterp.view.image)")
    agree(bars(page), lens(session.model, Image.open(tmp_path / name)), 4, 30)
    shown = bars(page)
    # bad ones: said, and the good one stays
    page.allowed.append("400 (BAD REQUEST)")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99)
    Image.new("1", (6000, 6000)).save(tmp_path / "bomb.png")
    (tmp_path / "huge.png").write_bytes(bytes(11 * 2**20))
    for file, said in (("bad.png", "bad.png"), ("bomb.png", "6000 x 6000"), ("huge.png", "larger than 10 MB")):
        page.set_input_files("#file", tmp_path / file)
        expect(page.locator("#notice")).to_contain_text(said)
        assert bars(page) == shown
    # a reload keeps the upload, the layer and the token
    page.reload()
    expect(page.locator("#current-name")).to_have_text(name)
    expect(page.locator("#output-panel .bar").first).to_be_visible()
    assert bars(page) == shown
    assert page.title() == "clsinterp explore", "a name was run as a script"


def test_an_address_with_an_image_that_is_gone(page, address):
    page.goto(f"{address}?image=0123456789abcdef&quantity=joy")
    expect(page.locator("#notice")).to_contain_text("is not here")
    expect(page.locator("#token-panel")).to_contain_text("Nothing to show")
    page.locator("#gallery .thumb").first.click()
    expect(page.locator("#output-panel .bar").first).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()
