"""The explorer's page in a real browser: interventions, addresses, looks, tabs."""

import re
import threading

import pytest
from explore_browser import (
    CLASSES,
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
from playwright.sync_api import expect

from clsinterp.explore import tabs
from clsinterp.explore.session import Session
from clsinterp.lens_maps import values
from clsinterp.lens_view import Intervention, lens

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
