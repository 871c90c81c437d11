"""`make docs`: the site builds without a warning, its links lead somewhere, and its reference has every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clsinterp

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as `make docs` builds it, but for the tutorials: test_tutorials.py runs them."""
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "SITE_QUICK": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return out


def lost(page: Path) -> list[str]:
    """Links of an HTML page to files or places that are not there."""
    found = []
    for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text()):
        path, _, heading = link.partition("#")
        if path.startswith(("http:", "https:", "mailto:", "data:")):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (heading and file.suffix == ".html" and f'id="{heading}"' not in file.read_text()):
            found.append(link)
    return found


def test_no_link_of_the_site_is_lost(site):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # whose links are from a server's root
    assert len(pages) > 15
    assert {page.name: found for page in pages if (found := lost(page))} == {}


def test_the_start_page_has_the_headline(site):
    assert re.search(r'<img[^>]* src="headline.png"', (site / "index.html").read_text())


def test_the_site_asks_for_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="http', page.read_text()), page.name


def test_the_reference_has_every_public_name(site):
    page = (site / "api.html").read_text()
    names = [name for name in clsinterp.__all__ if name != "__version__"]
    assert [name for name in names if f'id="clsinterp.{name}"' not in page] == []
    for words in ("Raises", "tracer.invoke(images)"):
        assert words in page


def test_every_page_can_be_found(site):
    """From the navigation, which every page has."""
    start = (site / "index.html").read_text()
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"demo"}  # whose table the zoo's page speaks of
    assert [name for name in sorted(pages) if f'href="{name}.html"' not in start] == []
