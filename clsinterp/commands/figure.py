"""``clsinterp figure``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clsinterp.console import command, out_console
from clsinterp.errors import RequestError

if TYPE_CHECKING:
    import plotly.graph_objects as go

STYLE = Annotated[
    str, typer.Option(help="page; or paper: as wide as a column, small print, the title printed here for the caption.")
]
WIDTH = Annotated[
    float | None,
    typer.Option(metavar="INCHES", help="Of the column.", show_default="3.3 for one panel across, 6.9 for several"),
]


@command
def figure(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Finished run folders, one panel each; or one study's folder."),
    ],
    out: Annotated[
        Path, typer.Option(help="FILE.html, .png, .svg or .pdf; of static images one each: FILE-2 and so on.")
    ] = Path("figure.html"),
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the published curves of the five checkpoints.")
    ] = False,
    style: STYLE = "page",
    width: WIDTH = None,
) -> None:
    """Draw one or several runs side by side, or a study again.

    Examples:
        clsinterp figure runs/vit
        clsinterp figure runs/vit runs/deit --published --out note.png
        clsinterp figure runs/vit --style paper --out fig.pdf
        clsinterp figure runs/erasure --style paper --width 5.5 --out erasure.svg
    """
    from clsinterp.figures.files import save_figure
    from clsinterp.figures.note import study_figures
    from clsinterp.runs.results import read_run

    studies = [run for run in runs if (run / "figure.json").is_file()]
    if studies and (len(runs) > 1 or published):
        raise RequestError(f"{studies[0]} is a study's folder, which is drawn alone and without --published.")
    if studies:
        figures: Sequence[go.Figure] = _of_study(studies[0])
    else:
        found = [read_run(run) for run in runs]
        figures = study_figures([(report.facts, curves) for report, curves in found], published=published)
    said(save_figure(figures, out, style, width))


def said(written: Mapping[Path, Sequence[str]]) -> None:
    """Print where figures are, and the captions of a paper's."""
    for file, captions in written.items():
        out_console.print(f"figure: {file}", soft_wrap=True, highlight=False)
        for caption in captions:
            out_console.print(f"caption: {caption}", soft_wrap=True, highlight=False, markup=False)


def _of_study(folder: Path) -> "list[go.Figure]":
    import plotly.io as pio

    from clsinterp.figures.files import numbered
    from clsinterp.files import reading

    paths = [folder / "figure.json"]
    while (path := numbered(paths[0], len(paths))).is_file():
        paths.append(path)
    with reading(paths[0], "Run the study again with --overwrite."):
        return [pio.from_json(path.read_text(encoding="utf-8")) for path in paths]
