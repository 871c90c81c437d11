"""Every Python block of the README and of docs runs as pasted: page by page, offline, in one namespace a page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = 3  # blocks that need a hub or a server; a page that needs more of them is not one to try things from
# A remark right before a block says what the test does with it: nothing, or expects the error whose text stands after it.
BLOCK = re.compile(
    r"(?:<!-- (?P<remark>not run|raises)(?:: (?P<why>[^>]*?))? -->\n)?```python\n(?P<code>.*?)```\n"
    r"(?:\n```text\n(?P<error>.*?)```)?",
    re.DOTALL,
)


class Block(NamedTuple):
    """A Python block: what a remark says of it, why, its code, and the text block that follows at once."""

    remark: str | None
    why: str | None
    code: str
    error: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The Python blocks of a page, in order."""
    for found in BLOCK.finditer(page.read_text()):
        yield Block(*found.group("remark", "why", "code", "error"))


def run(code: str, namespace: dict, file: Path) -> None:
    """Run from a file, as traces are read from their source."""
    file.write_text(code)
    exec(compile(code, str(file), "exec"), namespace)


def with_snippets() -> list[Path]:
    return [page for page in PAGES if any(block.remark != "not run" for block in blocks(page))]


@pytest.mark.parametrize("page", with_snippets(), ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, monkeypatch):
    from plotly.basedatatypes import BaseFigure

    monkeypatch.setattr(BaseFigure, "show", lambda figure: figure.to_json())  # drawn, but into no browser
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "__main__"}
    for i, block in enumerate(blocks(page)):
        file = tmp_path / f"{page.stem}_{i}.py"
        if block.remark == "raises":
            assert block.error, f"{page.name} shows no error text after:\n{block.code}"
            with pytest.raises(Exception) as raised:  # noqa: PT011  the page has the type and the words
                run(block.code, namespace, file)
            assert said(block.error) in f"{type(raised.value).__name__}: {said(str(raised.value))}"
        elif block.remark is None:
            run(block.code, namespace, file)


def said(text: str) -> str:
    """In one line, with dots for what a page leaves out at the end."""
    return " ".join(text.split()).removesuffix(" ...")


def test_few_blocks_are_not_run_and_each_says_why():
    left = [(page.name, block.why) for page in PAGES for block in blocks(page) if block.remark == "not run"]
    assert len(left) <= NOT_RUN, left
    assert all(why for _, why in left), left


def test_every_python_block_is_found():
    for page in PAGES:
        assert len(list(blocks(page))) == page.read_text().count("```python\n"), page.name


def test_a_snippet_that_does_not_run_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: needs the hub -->\n```python\na\n```\n\n```python\nb\n```\n\n```text\nc\n```\n")
    first, second = blocks(page)
    assert first == ("not run", "needs the hub", "a\n", None)
    assert second == (None, None, "b\n", "c\n")
    with pytest.raises(NameError):
        run(second.code, {}, tmp_path / "b.py")


LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "experiments" / "README.md"]


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of one."""
    lost = []
    for target, heading in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (heading and file.suffix == ".md" and heading[1:] not in headings(file)):
            lost.append(target + heading)
    return lost


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and mkdocs form them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_broken(page):
    assert broken(page) == []


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title, here\n[a](#a-title-here) [b](#gone) [c](gone.md) [d](page.md) [e](https://nowhere)\n")
    assert broken(page) == ["#gone", "gone.md"]
