"""Every command's --help: grouped, with examples that are commands, and no name cut however narrow the screen."""

import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from clsinterp.cli import app
from clsinterp.helptext import COMMAND_PANELS, PANELS, apart, by_panel


def commands():
    """Words -> command, groups left out."""
    found, todo = {}, [((), typer.main.get_command(app))]
    while todo:
        words, one = todo.pop()
        inner = getattr(one, "commands", None)
        if inner is None:
            found[words] = one
        else:
            todo += [((*words, name), sub) for name, sub in inner.items()]
    return found


COMMANDS = commands()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["50", "60", "80", "200"])
def test_no_name_is_cut(words, columns):
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": columns})
    assert done.exit_code == 0
    assert "…" not in done.output
    for option in COMMANDS[words].params:
        for name in (*option.opts, *option.secondary_opts):
            if option.param_type_name == "option":
                assert name in done.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_example_is_a_command(words):
    _, examples = apart(COMMANDS[words].help)
    assert examples
    for line in examples:
        program, *given = shlex.split(line)
        assert (program, tuple(given[: len(words)])) == ("clsinterp", words)
        COMMANDS[words].make_context(line, given[len(words) :])  # raises for what it does not take


def test_the_front_page_has_every_command_in_a_group():
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "60"})
    for heading in (*COMMAND_PANELS, "Examples:", *(words[0] for words in COMMANDS)):
        assert heading in done.output


def test_options_are_grouped_by_what_they_are_about():
    done = CliRunner().invoke(app, ["run", "--help"])
    at = [done.output.index(f"\n{panel}:\n") for panel in PANELS if panel not in ("What is shown",)]
    assert at == sorted(at)
    assert by_panel(["x", "seed", "data"], PANELS, "Rest") == {
        "Rest": ["x"],
        "Images": ["data"],
        "What is measured": ["seed"],
    }


def python_m(*words, python=sys.executable):
    given = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    return subprocess.run([python, "-m", "clsinterp", *words], capture_output=True, text=True, env=given)


def test_nothing_is_cut_in_a_pipe(python):
    done = python_m("models", python=python)
    assert done.returncode == 0
    assert "…" not in done.stdout
    assert "dinov2_with_registers" in done.stdout or "Dinov2WithRegistersForImageClassification" in done.stdout


def test_the_shell_completes():
    words = {"COMP_WORDS": "clsinterp run --train-p", "COMP_CWORD": "2"}
    found = CliRunner().invoke(app, [], prog_name="clsinterp", env={"_CLSINTERP_COMPLETE": "complete_bash", **words})
    assert "--train-per-class" in found.output
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).output


def test_the_libraries_are_quiet_unless_asked(checkpoint, pictures, tmp_path, python):
    pictures(0, 0).save(tmp_path / "a.png")
    words = ("lens", str(checkpoint("vit")), str(tmp_path / "a.png"), "--out", str(tmp_path / "a.html"))
    done = python_m(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for asked in (("-v", *words), (*words, "--verbose")):
        loud = python_m(*asked, python=python)
        assert (loud.returncode, loud.stdout) == (0, done.stdout)
        assert loud.stderr
