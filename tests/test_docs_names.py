"""Documents and docstrings name what is there: every dotted name resolves, every path exists, every example imports."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import clsinterp

ROOT = Path(__file__).parents[1]
PACKAGE = Path(clsinterp.__file__).parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.md"), *PACKAGE.rglob("*.md")]
)
DOCUMENTS = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which tells the past
SCRIPTS = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("experiments/**/*.py")])
NAME = re.compile(r"(?<![\w./-])clsinterp(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(r"(?<![\w./-])clsinterp/[\w/-]+\.(?:py|json|md)\b")


def resolves(dotted: str) -> bool:
    """Whether `dotted` is a module or something in one; a field that only instances have counts."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def stale(text: str) -> list[str]:
    """Names and paths in `text` that lead nowhere."""
    return [name for name in NAME.findall(text) if not resolves(name)] + [
        path for path in PATH.findall(text) if not (PACKAGE.parent / path).exists()
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(document):
    text = document.read_text()
    assert stale(text) == []
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clsinterp"):
                assert [a.name for a in node.names if not resolves(f"{node.module}.{a.name}")] == []


def test_what_docstrings_and_messages_name_is_there():
    assert {str(path.relative_to(ROOT)): found for path in SCRIPTS if (found := stale(path.read_text()))} == {}


def test_a_stale_name_would_be_found():
    assert stale("`clsinterp.patching` and clsinterp.fork, clsinterp/families.py, clsinterp/errors.py") == [
        "clsinterp.patching", "clsinterp/families.py",
    ]  # fmt: skip
