"""The explorer's page in a real browser: what a user sees, points at and presses.

One module, since a process drives one browser at a time.
"""

import re
import threading

import pytest
import tiny
from explore_browser import (
    CLASSES,
    LAYERS,
    NASTY,
    address,
    agree,
    bars,
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

from clsinterp.explore import tabs
from clsinterp.explore.session import Session
from clsinterp.models.source import zoo_names
from clsinterp.views.intervention import Intervention
from clsinterp.views.lens import lens
from clsinterp.views.maps import panels, values
from clsinterp.vision_model import VisionModel

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
    ready(page, address, "layer=3&quantity=attention&head=2")
    view = lens(session.model, drawing(0))
    for quantity, options, wanted in (
        ("attention", {"head": "2"}, panels([view], "attention", head=2)[0].z),
        ("entropy", {}, values(view, "entropy")),
        ("identifiability", {"class": "4"}, values(view, "identifiability", 4)),
    ):
        for control, value in {"quantity": quantity, **options}.items():
            page.evaluate("([id, value]) => dash_clientside.set_props(id, {value})", [control, value])
        asked = [f"quantity={quantity}", *(f"{k}={v}" for k, v in options.items())]
        until(page, f"{asked}.every(text => window.clsinterp.view.asked.includes(text))")
        until(page, "document.querySelector('#maps .js-plotly-plot').data[0].z.length === 7")
        until(
            page, f"Math.abs(document.querySelector('#maps .js-plotly-plot').data[0].z[0][0] - {wanted[3, 1]}) < 1e-5"
        )
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


# -- interventions -----------------------------------------------------------------


def test_swap_bookmark_and_open_again(page, address, session, context):
    ready(page, address, "layer=6")
    expect(page.locator("#empty")).to_contain_text("How to read")
    page.locator("#replace").click()
    page.get_by_role("option", name="Another image's CLS token").click()
    page.locator("#donors .thumb").nth(3).click()
    page.locator("#at").click()
    page.get_by_role("option", name="block 4", exact=True).click()
    until(page, f"window.clsinterp.view.asked.includes('at=4&donor={keys(session)[3]}')")
    expect(page.locator("#empty")).to_be_hidden()
    intact = lens(session.model, drawing(0))
    view = lens(session.model, drawing(0), Intervention("swap", 4, [drawing(3)]))
    point_at(page, view, 20, panel=1)
    expect(page.locator("#token-panel h2")).to_have_text(heading(view, 20))
    agree(bars(page), intact, 6, 20)
    agree(bars(page, group=1), view, 6, 20)
    found = page.evaluate("document.querySelector('#maps .js-plotly-plot').data.map(t => t.z.flat())")
    which = int(intact.output.argmax())
    difference = (values(view, "probability", which) - values(intact, "probability", which))[6]
    assert found[4] == pytest.approx(difference[1:].tolist(), abs=1e-5)
    trajectory = page.evaluate("document.querySelector('#trajectory .js-plotly-plot').data.map(t => t.y)")
    for line in trajectory[: len(trajectory) // 2]:
        assert any(line == pytest.approx(intact.trajectory()[:, c].tolist(), abs=1e-5) for c in range(CLASSES))
    for line in trajectory[len(trajectory) // 2 :]:
        assert any(line == pytest.approx(view.trajectory()[:, c].tolist(), abs=1e-5) for c in range(CLASSES))
    # what a vit cannot do is disabled, and says why
    expect(page.locator("#cls_only input")).to_be_disabled()
    expect(page.locator(".intervention")).to_contain_text("nothing to turn off")
    before = bars(page, group=1)
    with page.expect_download() as download:
        page.locator("#download-parquet").click()
    assert download.value.suggested_filename == "lens-probability.parquet"
    page.locator("#code-open").click()
    expect(page.locator("#code")).to_have_value(re.compile(r"block = model.blocks\[4\]"))
    page.locator("#code-close").click()
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#token-panel .bars")).to_have_count(2)
    assert bars(other, group=1) == before
    other.close()


def test_an_intervention_opens_on_a_layer_where_it_is_seen(page, address, session):
    layer = lambda: int(page.evaluate("window.clsinterp.layer"))  # noqa: E731
    shown = lambda: page.evaluate("document.querySelector('#maps .js-plotly-plot').data[4].z.flat()")  # noqa: E731
    slider = page.get_by_role("slider")
    ready(page, address, "layer=2")
    page.locator("#replace").click()
    page.get_by_role("option", name="Zeros").click()
    until(page, "(window.clsinterp.view.asked || '').includes('replace=zero')")
    assert layer() == 2, "what is seen at the layer shown stays there"
    page.locator("#at").click()
    page.get_by_role("option", name="block 5", exact=True).click()
    until(page, "window.clsinterp.view.asked.includes('at=5')")
    intact, view = (lens(session.model, drawing(0), edit) for edit in (None, Intervention("zero", 5)))
    which = int(intact.output.argmax())
    change = values(view, "probability", which) - values(intact, "probability", which)
    most = int(change.abs().amax(1).argmax())
    assert most >= 5
    expect(slider).to_have_attribute("aria-valuenow", str(most))
    until(page, f"new URLSearchParams(location.search).get('layer') === '{most}'")
    assert shown() == pytest.approx(change[most, 1:].tolist(), abs=1e-5)
    assert any(abs(x) > 0 for x in shown()) or float(change[most, 0]) != 0
    expect(page.locator("#token-panel .fine").first).to_contain_text(f"layer {most}")
    title = "document.querySelector('#maps .js-plotly-plot').data[4].colorbar.title.text"
    assert page.evaluate(title) == "intervened − intact"
    # the layer is the reader's from then on, and an address that names one is obeyed
    slider.focus()
    page.keyboard.press("Home")
    until(page, "window.clsinterp.layer === 0")
    page.locator("#gallery .thumb").nth(2).click()
    until(page, f"window.clsinterp.view.asked.includes('{keys(session)[2]}')")
    assert layer() == 0
    ready(page, address, "layer=1&replace=zero&at=5")
    assert layer() == 1


def test_turning_the_distillation_head_off(page, serve, model):
    m = model("deit")
    ready(page, serve(Session(m, gallery(2))), "layer=1")
    page.locator("#cls_only input").click()
    expect(page.locator("#output-panel .bars")).to_have_count(2)
    view = lens(m, drawing(0), Intervention(cls_only=True))
    p, c = view.output.softmax(-1).topk(5)
    assert [row[0] for row in bars(page, "#output-panel", 1)] == c.tolist()
    assert [row[1] for row in bars(page, "#output-panel", 1)] == pytest.approx(p.tolist(), rel=1e-4)
    assert "cls_only=1" in page.url


# -- looks and lives -----------------------------------------------------------------


def test_dark_mode_is_kept_and_nothing_jumps(page, address):
    ready(page, address, "theme=light")

    def boxes():
        return {s: page.locator(s).bounding_box() for s in ("header", ".toolbar", ".stage", ".charts", ".images")}

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, before = background(), boxes()
    page.locator("#theme-switch").click()
    until(page, "document.documentElement.dataset.theme === 'dark'")
    assert background() != light
    until(page, "location.search.includes('theme=dark')")
    assert boxes() == before
    page.locator("#replace").click()
    page.get_by_role("option", name="Zeros").click()
    expect(page.locator("#token-panel .bars")).to_have_count(2)
    assert boxes() == before, "comparing moved the page about"
    page.goto(address)
    until(page, "document.documentElement.dataset.theme === 'dark'")
    overflow = page.evaluate(
        "[document.documentElement.scrollWidth > innerWidth, document.documentElement.scrollHeight > innerHeight]"
    )
    assert overflow == [False, False], "the page does not fit 1280 x 800"


def test_nothing_is_cut_at_any_width_and_work_in_progress_is_said(page, address):
    ready(page, address, "theme=light&replace=swap&at=2")
    for width in (900, 1280, 1760):
        page.set_viewport_size({"width": width, "height": 800})
        until(
            page, f"innerWidth === {width} && document.documentElement.scrollWidth <= innerWidth"
        )  # plotly comes after
    expect(page.locator("[role=status]")).to_be_hidden()
    page.evaluate("document.getElementById('page').classList.add('busy')")
    expect(page.locator("[role=status]")).to_be_visible()
    expect(page.locator("[role=status]")).to_have_text("computing …")


def test_every_control_can_be_reached_by_keyboard(page, address):
    ready(page, address, "theme=light&replace=swap&at=2")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.closest('[id]')?.id"))
    assert {"code-open", "download-html", "theme-switch", "upload", "gallery", "replace", "at", "donors", "quantity",
            "class", "play", "maps-box"} <= seen  # fmt: skip


def test_a_closed_tab_is_forgotten(page, address, session, context, monkeypatch):
    monkeypatch.setattr(tabs, "GRACE", 0.2)
    other = context.new_page()
    ready(other, address)
    tab = other.evaluate("window.clsinterp.tab")
    assert tab in session.tabs._until
    other.goto("about:blank")
    for _ in range(100):
        if tab not in session.tabs._until:
            break
        threading.Event().wait(0.1)
    assert tab not in session.tabs._until
    other.close()
