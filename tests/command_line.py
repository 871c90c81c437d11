"""The command line, called in this process."""

from typer.testing import CliRunner

from clsinterp.cli import app

BATCH = 16


def invoke(*args) -> tuple[int, str]:
    """Exit status and output of ``clsinterp ARGS``; anything but an orderly end is raised."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def invoke_flat(*args) -> tuple[int, str]:
    """The same with the output's lines joined, wherever they were broken."""
    status, output = invoke(*args)
    return status, " ".join(output.split())


def run(checkpoint, data, out, *more) -> tuple[int, str]:
    return invoke_flat("run", checkpoint, "--data", data, "--out", out, "--batch-size", BATCH, "--workers", 0, *more)
