"""``clsinterp figure``."""

from pathlib import Path
from typing import Annotated

import typer

from clsinterp.console import command, out_console


@command
def figure(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders; one panel each.")],
    out: Annotated[Path, typer.Option(help="FILE.html, .png, .svg or .pdf.")] = Path("figure.html"),
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the published curves of the five checkpoints.")
    ] = False,
) -> None:
    """Draw one or several runs side by side.

    Examples:
        clsinterp figure runs/vit
        clsinterp figure runs/vit runs/deit --published --out note.png
    """
    from clsinterp.figures.files import save_figure
    from clsinterp.figures.note import study_figures
    from clsinterp.runs.results import read_run

    found = [read_run(run) for run in runs]
    save_figure(study_figures([(report.facts, curves) for report, curves in found], published=published), out)
    out_console.print(f"figure: {out}", soft_wrap=True, highlight=False)
