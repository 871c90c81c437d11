"""The explorer's page in a real browser: what a user sees, points at and presses."""

import os
import re
import shutil
import threading

import numpy as np
import pytest
import tiny
import torch
import transformers as hf
from explore_session import encoded
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from clsinterp.checkpoint import zoo_names
from clsinterp.explore import tabs
from clsinterp.explore.gallery import Gallery, Picture
from clsinterp.explore.server import build, listen
from clsinterp.explore.session import Session
from clsinterp.lens_maps import values
from clsinterp.lens_view import Intervention, lens
from clsinterp.model import VisionModel

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGS = ["--disable-gpu", "--disable-background-networking"]
LAYERS, CLASSES = 12, 10
NASTY = "<img src=x onerror=document.title=1>"


def mid_size() -> VisionModel:
    """As large as the zoo: 12 blocks, width 64, 7 x 7 patches, 10 classes; one has a name that would be a script."""
    names = {i: f"class {i}" for i in range(CLASSES)} | {3: NASTY}
    config = hf.ViTConfig(
        hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=128, image_size=28,
        patch_size=4, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    module = hf.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.25)
    size = {"height": 28, "width": 28}
    processor = hf.ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return VisionModel(module, image_processor=processor)


def drawing(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8))


def gallery(n: int = 8) -> Gallery:
    return Gallery(
        [Picture.of(encoded(drawing(i)), f"drawing {i} {NASTY}", f"Image.open('{i}.png')") for i in range(n)]
    )


@pytest.fixture(scope="module")
def serve():
    """session -> address of its page."""
    running = []

    def start(session: Session) -> str:
        server = listen(build(session), "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.port}/"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def session():
    return Session(mid_size(), gallery())


@pytest.fixture(scope="module")
def address(serve, session):
    return serve(session)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, f"these tests need one of {', '.join(BROWSERS)}; on Debian: apt-get install chromium"
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=[*ARGS, *root])
        yield found
        found.close()


expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def context(browser):
    """Shared, so that scripts are fetched and compiled once."""
    return browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)


@pytest.fixture
def page(context):
    """A page on which any console error, failed script or request to elsewhere fails the test."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong, page.allowed = [], []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if re.match(r"http://127\.0\.0\.1:|data:|blob:", r.url) else wrong.append(r.url))
    yield page
    page.close()
    left = [w for w in wrong if not any(text in w for text in page.allowed)]
    assert left == []


def ready(page, address, query="theme=light"):
    page.goto(f"{address}?{query}")
    expect(page.locator("#output-panel .bar").first).to_be_visible(timeout=30_000)
    page.wait_for_selector("#maps .hm image")


def until(page, truth):
    """Wait for a JavaScript expression to hold. (Playwright's own wait needs eval, which the page's policy refuses.)"""
    for _ in range(300):
        if page.evaluate(truth):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {truth}")


def keys(session):
    return [p.key for p in session.gallery.pictures]


def bars(page, panel="#token-panel", group=0):
    """(class, probability, logit) of each bar."""
    rows = page.locator(f"{panel} .bars").nth(group).locator(".bar")
    return rows.evaluate_all("rows => rows.map(r => [+r.dataset.class, +r.dataset.p, +r.dataset.logit])")


def agree(shown, view, layer, token):
    p, c = view.top(5)
    assert [row[0] for row in shown] == c[layer, token].tolist()
    assert [row[1] for row in shown] == pytest.approx(p[layer, token].tolist(), rel=1e-4)
    logits = view.logits[layer, token, c[layer, token]].tolist()
    assert [row[2] for row in shown] == pytest.approx(logits, rel=1e-4, abs=1e-5)


def point_at(page, view, token, panel=0):
    """Move the mouse to a token of a map, to where plotly says its cell is."""
    x, y = page.evaluate(
        """([panel, x, y, prefix]) => {
            const figure = document.querySelector("#maps .js-plotly-plot"), n = 2 * panel + (prefix ? 2 : 1);
            const axis = (letter) => figure._fullLayout[letter + "axis" + (n === 1 ? "" : n)];
            const box = figure.getBoundingClientRect();
            return [box.x + axis("x")._offset + axis("x").l2p(x), box.y + axis("y")._offset + axis("y").l2p(y)];
        }""",
        [panel, *place(view, token), token < view.n_prefix],
    )
    page.mouse.move(x + 2, y + 2)
    page.mouse.move(x, y)


def place(view, token):
    return (0, token) if token < view.n_prefix else reversed(divmod(token - view.n_prefix, view.grid[1]))


def heading(view, token):
    return re.compile(rf"^{view.tokens[token]}, probability$")


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
