"""The library's advice is Python; the command line says the same in its options."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import invoke

import clsinterp
from clsinterp.console import as_options
from clsinterp.runs.demo import requests
from clsinterp.runs.run import run

OPTIONS = {"head": "--head", "memory_gb": "--memory-gb", "resume": "--resume", "out": "--out", "layers": "--layers"}
SHELL = re.compile(r"(clsinterp \w+|ray start)\b.*")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("fit a head with head='fit'.", "fit a head with --head fit."),
        ('use head="fit", or resume=True.', "use --head fit, or --resume."),
        ("give more with memory_gb=, or fewer layers=.", "give more with --memory-gb, or fewer --layers."),
        ("give memory_gb=0.5; it was (out=runs/a.b).", "give --memory-gb 0.5; it was (--out runs/a.b)."),
        ("choose another out='my runs'.", "choose another --out 'my runs'."),
        ("shape= is no option here, nor is subhead=1", "shape= is no option here, nor is subhead=1"),
        ("leave resume=False alone", "leave resume=False alone"),
        ("/data/head=3/x and http://host/?out=1&head=2", "/data/head=3/x and http://host/?out=1&head=2"),
    ],
)
def test_arguments_become_options(said, shown):
    assert as_options(said, OPTIONS) == shown


def test_one_mistake_is_told_in_either_language(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(clsinterp.RequestError, match=r"pass resume=True, overwrite=True, or another out=\."):
        run(requests()[0][0], tmp_path / "out")
    code, text = invoke("run", "zoo/vit", "--data", "zoo", "--out", tmp_path / "out")
    assert code == 2
    assert "pass --resume, --overwrite, or another --out." in text


def test_short_options_are_told_by_their_long_name(tmp_path):
    code, text = invoke("run", "zoo/vit", "--data", "zoo", "--out", tmp_path / "out", "--engine", "ray", "-j", 0)
    assert (code, "--jobs 0 was given" in text) == (2, True)


def test_no_error_of_the_library_names_an_option():
    """Whole shell commands are excepted: ``clsinterp check MODEL --remote``."""
    found = []
    root = Path(clsinterp.__file__).parent
    for path in root.rglob("*.py"):
        if path.parent.name == "commands" or path.name in ("console.py", "parse.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.search(r"(Error|TooEarly)$", ast.unparse(node.func)):
                texts = (c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str))
                text = SHELL.sub("", " ".join(texts))
                found += [f"{path.relative_to(root)}:{node.lineno}: {text}"] if re.search(r"--[a-z]", text) else []
    assert found == []


def test_warnings_are_told_in_options_too():
    code = (
        "import logging; from clsinterp.console import log_lines; log_lines({'resume': '--resume'});"
        "logging.getLogger('clsinterp.x').warning('a run goes on with %s.', 'resume=True')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "clsinterp: a run goes on with --resume.\n"
