"""What every command shares: the consoles, the options that mean the same everywhere, and how failures end.

Heavy imports stay inside functions, so that --help is immediate.
"""

import errno
import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clsinterp.errors import ClsinterpError, RequestError, explained

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
out_console, err_console = Console(), Console(stderr=True)

MODEL = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, checkpoint folder, or zoo/NAME.")]
ALLOW_PICKLE = Annotated[
    bool, typer.Option("--allow-pickle", help="Accept pickled weights, which can run code when loaded.")
]
DEVICE = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
DTYPE = Annotated[str, typer.Option(help="auto (float32), float32, float16, bfloat16.")]
REMOTE = Annotated[bool, typer.Option("--remote", help="Run on an NDIF server; the key comes from NDIF_API_KEY.")]
HOST = Annotated[
    str | None, typer.Option(metavar="URL", help="The server, with --remote.", show_default="NDIF_HOST, or NDIF")
]
PER_REQUEST = Annotated[
    int | None, typer.Option(help="Images per request, with --remote; changes no number.", show_default="a batch")
]
CLASSIFIER = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Run folder whose fitted head reads.", show_default="the model's own classifier"),
]
CONFIG = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="Change a config field, such as use_mean_pooling=false."),
]


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register, in `group`, a command whose failures become one message on stderr and an exit status."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ClsinterpError as error:
            fail(str(error), error.exit_status)
        except KeyboardInterrupt:
            fail("stopped. Give the same command with --resume to go on.", 130)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(said := explained(error), ClsinterpError):
                raise
            fail(str(said), said.exit_status)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM):
                raise
            fail(f"{error.strerror}: {error.filename or ''}", 1)

    return group.command()(wrapped)


def fail(message: str, status: int) -> None:
    """Say what went wrong on stderr and end with `status`."""
    err_console.print(f"clsinterp: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def quiet_libraries() -> None:
    """Keep the libraries' bars and reports out of ours; what they would say about weights, `checkpoint` checks itself."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.basicConfig(level=logging.WARNING, format="clsinterp: %(message)s")
    logging.getLogger("nnsight").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def server_of(remote: bool, host: str | None, per_request: int | None = None) -> Any:
    """The `Server` that --remote, --host and --per-request mean; None without --remote."""
    if not remote:
        for name, value in (("--host", host), ("--per-request", per_request)):
            if value is not None:
                raise RequestError(f"{name} {value} was given without --remote.")
        return None
    from clsinterp.remote.server import Server

    return Server(host, per_request=per_request)


def parse_layers(text: str) -> tuple[int, ...] | None:
    """``all`` -> None, ``0,3,11`` -> the layers."""
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--layers {text} was given; all, or numbers such as 0,3,11 are expected.") from None


def parse_config(pairs: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` options -> config fields, values as JSON where they are."""
    config = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RequestError(f"--config {pair} was given; KEY=VALUE is expected.")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, images done, images in all) that draws a bar per stage, with rate and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console, disable=quiet) as bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, completed=done, rate="")
                return
            speed = bars.tasks[tasks[stage]].speed
            bars.update(tasks[stage], completed=done, rate=f"{speed:.0f} images/s" if speed else "")

        yield progress
