"""What every command shares: the consoles, the options that mean the same everywhere, and how failures end.

Heavy imports stay inside functions, so that --help is immediate.
"""

import errno
import functools
import inspect
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions

from clsinterp.errors import ClsinterpError, RequestError, explained
from clsinterp.helptext import CommandHelp, GroupHelp
from clsinterp.signals import ending_as_interrupts, exit_status

app = typer.Typer(
    cls=GroupHelp,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Console(Console):
    """A console that cuts nothing where nobody's screen is the measure: in a pipe or a file, unless COLUMNS says so."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and rows."""
        if self.is_terminal or "COLUMNS" in os.environ:
            return super().size
        return ConsoleDimensions(PIPED, 25)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        Console.size.fset(self, new)  # type: ignore[attr-defined]


PIPED = 200  # columns
out_console, err_console = _Console(), _Console(stderr=True)


def _show_version(asked: bool) -> None:
    if asked:
        out_console.print(f"clsinterp {version('clsinterp')}", highlight=False)
        raise typer.Exit


VERBOSE = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say how much work a run is, and what the libraries say.")
]
_said = {"verbose": False}  # before the command or after it


@app.callback()
def _root(
    asked: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    verbose: VERBOSE = False,
) -> None:
    """Where vision transformers hold the label in their CLS token, and where their output depends on it.

    Examples:
        clsinterp demo
        clsinterp run zoo/vit --data zoo --limit 200 --out runs/vit
        clsinterp run --help
    """
    _said["verbose"] = verbose


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
CLASSES = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES|FILE",
        help="Class names for the text tower: a,b,c, or a file with a name a line.",
        show_default=False,
    ),
]
TEMPLATES = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="SENTENCE",
        help="With {} for a class name; give it again for more.",
        show_default="six of this package's",
    ),
]
CONFIG = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="Change a config field, such as use_mean_pooling=false."),
]


# An argument as Python spells it: ``seed=``, ``resume=True``, ``head="fit"``, ``out=runs/a``; not within a path or a web address.
ARGUMENT = re.compile(r"""(?<![\w/=&?.-])([a-z]\w*)=(?:"([^"]*)"|'([^']*)'|([\w/](?:[\w./:-]*[\w/])?))?""")


# What a file system says to a wrong path, a full disk or missing rights: told in a line. Anything else is a fault of ours.
FILE_FAULTS = (
    errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOENT,
    errno.ELOOP,
)  # fmt: skip


class Command(CommandHelp):
    """A command whose failures become one message on stderr and an exit status.

    The library's advice names arguments as Python spells them; here they become this command's options.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        options = {p.name: max(p.opts, key=len) for p in self.params if p.name and p.param_type_name == "option"}
        spelled = {"resume": "--resume", **options}  # of a run, which other commands speak of too
        log_lines(spelled)
        try:
            with ending_as_interrupts():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            go_on = " Give the same command with --resume to go on." if "resume" in options else ""
            fail(f"stopped.{go_on}", exit_status(error))
        except (ClsinterpError, MemoryError, RuntimeError) as error:
            said = explained(error)
            if not isinstance(said, ClsinterpError):
                raise
            fail(as_options(str(said), spelled), said.exit_status)
        except OSError as error:
            if error.errno not in FILE_FAULTS:
                raise
            fail(f"{error.strerror}: {error.filename or ''}", 2 if error.errno == errno.ENAMETOOLONG else 1)


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register `function` as a `Command` of `group`, with ``--verbose`` among its options; it is returned as it was."""

    @functools.wraps(function)
    def called(*, verbose: bool, **options: Any) -> None:
        _said["verbose"] |= verbose
        function(**options)

    asked = inspect.signature(function)
    more = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VERBOSE)
    called.__signature__ = asked.replace(parameters=[*asked.parameters.values(), more])  # type: ignore[attr-defined]
    called.__annotations__ = {**function.__annotations__, "verbose": VERBOSE}
    group.command(cls=Command)(called)
    return function


def as_options(message: str, options: Mapping[str, str]) -> str:
    """`message` with arguments in Python's spelling turned into options of the command line.

    Args:
        message: of an error.
        options: name of an argument -> option; names that are not among them stay as they are, as does
            what is set to False.

    Example:
        >>> as_options('give head="fit", a smaller seed=, or resume=True.', {"head": "--head", "resume": "--resume"})
        'give --head fit, a smaller seed=, or --resume.'
    """

    def option(found: re.Match[str]) -> str:
        name, *values = found.groups()
        if name not in options or "False" in values:
            return found[0]
        given = [shlex.quote(value) for value in values if value not in (None, "True")]
        return " ".join([options[name], *given])

    return ARGUMENT.sub(option, message)


class _Line(logging.Formatter):
    """A log line, with `options` in the place of arguments."""

    def __init__(self, options: Mapping[str, str]) -> None:
        super().__init__("clsinterp: %(message)s")
        self.options = options

    def format(self, record: logging.LogRecord) -> str:
        return as_options(super().format(record), self.options)


def log_lines(options: Mapping[str, str]) -> None:
    """Show warnings as lines on stderr, arguments in them as in `as_options`; ours of any kind under --verbose."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line(options))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("clsinterp").setLevel(logging.INFO if _said["verbose"] else logging.NOTSET)


def fail(message: str, status: int) -> None:
    """Say what went wrong on stderr and end with `status`."""
    err_console.print(f"clsinterp: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def quiet_libraries() -> None:
    """Keep the libraries' bars and reports out of ours; what they would say about weights, `checkpoint` checks itself.

    Does nothing under ``--verbose``.
    """
    if _said["verbose"]:
        return
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
    else:  # what its import reads; it takes 0.7 s, and the shipped sample does without
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("DATASETS_VERBOSITY", "error")
    log_lines({})  # in a worker process; a command has said more already
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
