"""The pictures of the explorer: its page on zoo/dinov2-small and a photo that ships, photographed in a browser.

``python docs/explore_picture.py`` writes explore.png (a swap: before, after, difference) and explore-maps.png (CLS attention and
similarity to the CLS token). It needs the extras explore and test, Chrome or Chromium, and ``clsinterp zoo fetch dinov2-small``.
"""

import os
import shutil
import threading
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from clsinterp.data.photos import PHOTOS
from clsinterp.explore.gallery import from_folder
from clsinterp.explore.server import build, listen
from clsinterp.explore.session import Session
from clsinterp.vision_model import VisionModel

HERE, MODEL = Path(__file__).parent, "zoo/dinov2-small"
BROWSER = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
SWAP = {"quantity": "logit", "replace": "swap", "at": 9, "layer": 10}
MAPS = ({"quantity": "attention", "layer": 11}, {"quantity": "similarity", "layer": 11})


def photographed(browser: Browser, address: str, to: Path, part: str | None = None, width: int = 1280, **query) -> None:
    """The page, or a `part` of it, at the address that `query` makes, as a PNG."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(180_000)  # a busy machine is slow to load a page
    page.goto(f"{address}?{urlencode({'theme': 'light', **query})}")
    page.wait_for_selector("#output-panel .bar")
    page.wait_for_selector("#maps .hm image")
    page.wait_for_timeout(500)  # plotly's last redraw
    (page.locator(part) if part else page).screenshot(path=to)
    page.close()


def main() -> None:
    session = Session(VisionModel(MODEL, classifier=MODEL), from_folder(PHOTOS))
    keys = {p.name: p.key for p in session.gallery.pictures}
    server = listen(build(session), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.port}/"
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--disable-gpu", *root])
        photo = {"image": keys["raccoon.jpg"]}
        photographed(browser, address, HERE / "explore.png", **photo, donor=keys["rocket.jpg"], **SWAP)
        parts = []
        for i, query in enumerate(MAPS):
            to = HERE / f"explore-maps-{i}.png"
            photographed(browser, address, to, "#maps-box", **photo, **query)
            parts.append(to)
        browser.close()
    pictures = [Image.open(path) for path in parts]
    joined = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height), "white")
    for i, picture in enumerate(pictures):
        joined.paste(picture.convert("RGB"), (i * picture.width, 0))
    joined.save(HERE / "explore-maps.png", optimize=True)
    for path in parts:
        path.unlink()


if __name__ == "__main__":
    main()
