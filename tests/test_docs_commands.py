"""Commands that README and docs show exist, with the options that they show."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from clsinterp.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOT_COMMAND = typer.main.get_command(app)


def commands(text: str) -> list[str]:
    """Lines of shell blocks that call `clsinterp`, continued ones joined, without remarks."""
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text.replace("\\\n", " "), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip().startswith("clsinterp ")]


def unknown(line: str) -> list[str]:
    """Words of a command that it does not know: its name, or an option."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = ROOT_COMMAND
    while isinstance(group := command, click.Group) or hasattr(group, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            return []
        if name not in group.commands:
            return [name]
        command = group.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text())], ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    assert {line: lost for line in commands(page.read_text()) if (lost := unknown(line))} == {}


def test_an_unknown_option_would_be_found():
    assert unknown("clsinterp run zoo/vit --data zoo --layres 3  # why") == ["--layres"]
    assert unknown("clsinterp rum zoo/vit") == ["rum"]
    assert unknown("clsinterp zoo fetch dinov2-small") == []
    assert commands("```\nclsinterp run A \\\n    --data B\nls\n```\n") == ["clsinterp run A      --data B"]
