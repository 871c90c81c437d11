"""A hook of mkdocs: pages that lie elsewhere in the repository, and links that are right in it and on the site.

The README is the start page, the experiments' README the gallery, and the tutorials are pages beside their notebooks. Links
are written for the repository; here those to pages of the site are turned to where they are on it, and those to files that
are not on it (source) are left as words.
"""

import os
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from tutorial_pages import SCRIPT, TUTORIALS, as_page, executed, script

ROOT = Path(__file__).parents[1]
# File of the repository -> page of the site; what lies in docs is a page under its own name.
ELSEWHERE = {
    "README.md": "index.md",
    "experiments/README.md": "gallery.md",
    "CONTRIBUTING.md": "contributing.md",
    **{
        str(card.relative_to(ROOT)): f"cards/{card.parent.name}.md"
        for card in sorted(ROOT.glob("clsinterp/zoo/*/README.md"))
    },
    **{
        f"experiments/{table}": str(table)
        for table in sorted(path.relative_to(ROOT / "experiments") for path in ROOT.glob("experiments/tables/**/*.md"))
    },
}
QUICK = "SITE_QUICK" in os.environ  # tutorials as they lie, without running them
CODE = re.compile(r"(?<!</span>)<code>[^<]*</code>")  # within a line; that of a block stands after an empty span
OPTION = re.compile(r"(?<![\w/-])--?[a-zA-Z][\w-]*")
PICTURES = "experiments/figures"
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<heading>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for picture in sorted((ROOT / PICTURES).glob("**/*.svg")):
        files.append(File.generated(config, site_path(str(picture.relative_to(ROOT))), abs_src_path=str(picture)))
    for notebook in TUTORIALS:
        page = as_page(nbformat.read(notebook, as_version=4) if QUICK else executed(notebook), notebook.stem)
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=page))
    files.append(File.generated(config, f"tutorials/{SCRIPT}", content=script()))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    place = page.file.src_uri
    if place == "rules.md":
        page.meta["search"] = {"boost": 4}  # who searches for the words of an error is to come there first
    at = {page: source for source, page in ELSEWHERE.items()}.get(place, f"docs/{place}")

    def turned(found: re.Match[str]) -> str:
        target, heading = found["target"], found["heading"] or ""
        if not target or target.startswith(("http://", "https://", "mailto:")):
            return found[0]
        on_site = site_path(normpath(PurePosixPath(at).parent / target))
        if files.get_file_from_path(on_site) is None:
            return found["text"]
        text = re.sub(r"^docs/(.+)\.md$", r"\1", found["text"])  # a path is a name in the repository, and none here
        return f"{found['picture']}[{text}]({relpath(on_site, PurePosixPath(place).parent)}{heading})"

    return LINK.sub(turned, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Options in a line of text are not broken at their dashes."""
    return CODE.sub(lambda found: OPTION.sub(r'<span class="whole">\g<0></span>', found[0]), html)


def site_path(source: str) -> str:
    """Where a file of the repository is on the site, if it is there."""
    if source.startswith(f"{PICTURES}/"):
        return source.removeprefix("experiments/")
    return ELSEWHERE.get(source, source.removeprefix("docs/") if source.startswith("docs/") else "")
