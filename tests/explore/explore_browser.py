"""A real browser on a served page, for the tests of the explorer's page: fixtures, and how to read what it shows."""

import os
import re
import threading

import numpy as np
import pytest
import torch
import transformers as hf
from browser import find
from explore_session import encoded
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from clsinterp.explore.gallery import Gallery, Picture
from clsinterp.explore.server import build, listen
from clsinterp.explore.session import Session
from clsinterp.vision_model import VisionModel

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
def context(tmp_path_factory):
    """Shared, and with a folder where the browser keeps what it compiled scripts to: a page opens in two thirds of the time."""
    path = find()
    assert path, "these tests need Chrome or Chromium: python tests/browser.py finds or installs one"
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=path, args=[*ARGS, *root],
            viewport={"width": 1280, "height": 800}, accept_downloads=True,
        )  # fmt: skip
        found.set_default_timeout(30_000)
        yield found
        found.close()


expect.set_options(timeout=20_000)


@pytest.fixture
def page(context):
    """A page on which any console error, failed script or request to elsewhere fails the test."""
    page = context.new_page()
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
