"""``clsinterp demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clsinterp.commands.run import summary
from clsinterp.console import command, err_console, out_console, progress_bars, quiet_libraries
from clsinterp.data.hub import refuse_missing

if TYPE_CHECKING:
    from clsinterp.runs.results import Run


PHOTOS_TIME = "4,500 photos of 224 pixels take about 20 minutes on two cores; stopped, the next call begins again."
README_FIGURE = (
    "This is not the README's first picture: garments of 28 pixels instead of photos of 224, small models beside the real one. "
    "For that one (needs the hub, or a folder of class folders): clsinterp demo --photos imagenette"
)


@command
def demo(
    out: Annotated[
        Path, typer.Option(help="Where the run folders and the figure go; runs already there are replaced.")
    ] = Path("runs/demo"),
    photos: Annotated[
        str | None,
        typer.Option(
            metavar="imagenette|FOLDER",
            help="The README's first picture instead: the real checkpoint on photos at 224 pixels, from the hub or a folder of "
            "class folders.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the note on a real checkpoint (if fetched) and the small ones that ship with the package.

    Examples:
        clsinterp demo
        clsinterp demo --out runs/demo
    """
    if photos is not None:
        refuse_missing(photos)  # before torch is imported
    quiet_libraries()
    from clsinterp.figures.files import save_figure
    from clsinterp.figures.note import study_figures
    from clsinterp.runs.demo import on_photos, requests
    from clsinterp.runs.request import default_out
    from clsinterp.runs.results import read_run
    from clsinterp.runs.run import run

    asked, missing = ([on_photos(photos)], []) if photos is not None else requests()
    if photos is not None:
        err_console.print(PHOTOS_TIME, soft_wrap=True, highlight=False)
    for name in missing:
        err_console.print(
            f"clsinterp: {name} is not here, going on without it; to have it: clsinterp zoo fetch {name.removeprefix('zoo/')}",
            style="yellow",
            soft_wrap=True,
            highlight=False,
        )
    found = []
    for request in asked:
        err_console.print(request.model, style="bold", highlight=False)
        with progress_bars() as progress:
            folder = run(request, out / default_out(request.model).name, overwrite=True, progress=progress)
        found.append(read_run(folder))
    page = out / "figure.html"
    save_figure(study_figures([(report.facts, curves) for report, curves in found]), page)
    rows = _rows(found)
    (out / "summary.md").write_text(_markdown(rows))
    out_console.print(_table(rows))
    for report, _ in found:
        out_console.print(summary(report), soft_wrap=True, highlight=False)
    if photos is None:
        out_console.print(README_FIGURE, soft_wrap=True, highlight=False)
    out_console.print(f"figure: {page}", soft_wrap=True, highlight=False)


HEAD = (
    "model", "n", "intact", "floor", "best probe", "swap at 0", "same answer", "swap last", "decodable from", "used from",
)  # fmt: skip


def _rows(found: list["Run"]) -> list[list[str]]:
    """A row per model as in `HEAD`: accuracies intact, if the output followed the donor, of the best probe, after swaps at the
    first layer (with the share of answers that stay) and the last; the two onsets."""
    rows = []
    for report, curves in found:
        points = [r for r in curves.to_pylist() if r["probed_layer"] is None]
        value = {(r["curve"], r["layer"], r["metric"]): r["value"] for r in points}
        best = max(v for (curve, _, metric), v in value.items() if (curve, metric) == ("probe", "accuracy"))
        last = report.facts.n_layers - 1
        cells = [value["intact", None, "accuracy"], (report.facts.floors or {})["use"], best]
        cells += [value["shuffle", 0, "accuracy"], value["agreement", 0, "share"], value["shuffle", last, "accuracy"]]
        ends = [str(report.onsets[key]) for key in ("decodable_from", "used_from")]
        n = str(report.manifest.counts.test)
        rows.append([report.facts.model, n, *(f"{cell:.3f}" for cell in cells), *ends])
    return rows


def _table(rows: list[list[str]]) -> Any:
    """The rows without ``n``, narrow enough for 80 columns."""
    from rich.table import Table

    title = "Accuracy: intact, if the output followed the donor, of the best probe, after CLS swaps; the two onsets"
    table = Table(title=title, box=None, padding=(0, 0, 0, 1))
    kept = [i for i, name in enumerate(HEAD) if name != "n"]
    for i in kept:
        name = HEAD[i].replace(" ", "\n", 1)
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    return table


def _markdown(rows: list[list[str]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
