"""``clsinterp merge``."""

from pathlib import Path
from typing import Annotated

import typer

from clsinterp.commands.run import show
from clsinterp.console import command


@command
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of the shards.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No table.")] = False,
) -> None:
    """Assemble a run whose shards are all done; says what is missing otherwise.

    Examples:
        clsinterp merge runs/vit
    """
    from clsinterp.runs.assemble import merge as merge_parts
    from clsinterp.runs.folder import RunFolder

    merge_parts(RunFolder(run))
    if not quiet:
        show(run)
