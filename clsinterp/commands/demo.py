"""``clsinterp demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clsinterp.commands.run import summary
from clsinterp.console import command, err_console, out_console, progress_bars, quiet_libraries

if TYPE_CHECKING:
    from clsinterp.runs.results import Run


@command
def demo(
    out: Annotated[
        Path, typer.Option(help="Where the run folders and the figure go; runs already there are replaced.")
    ] = Path("runs/demo"),
) -> None:
    """Run the note on a real checkpoint (if fetched) and the small ones that ship with the package."""
    quiet_libraries()
    from clsinterp.figures.files import save_figure
    from clsinterp.figures.note import study_figures
    from clsinterp.runs.demo import requests
    from clsinterp.runs.request import default_out
    from clsinterp.runs.results import read_run
    from clsinterp.runs.run import run

    asked, missing = requests()
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
    out_console.print(_table(found))
    for report, _ in found:
        out_console.print(summary(report), soft_wrap=True, highlight=False)
    out_console.print(f"figure: {page}", soft_wrap=True, highlight=False)


def _table(found: list["Run"]) -> Any:
    """A row per model: accuracy intact, of the best probe, after swaps at the first and last layer; the onsets."""
    from rich.table import Table

    table = Table(title="Accuracy: intact, read from CLS by a probe, after a CLS swap; layers of the onsets")
    table.add_column("model", no_wrap=True)
    for name in ("intact", "best probe", "swap first", "swap last", "decodable", "used"):
        table.add_column(name, justify="right", no_wrap=" " not in name)
    for report, curves in found:
        rows = curves.to_pylist()
        value = {
            (r["curve"], r["layer"]): r["value"]
            for r in rows
            if r["metric"] == "accuracy" and r["probed_layer"] is None
        }
        best = max(v for (curve, _), v in value.items() if curve == "probe")
        cells = [value["intact", None], best, value["shuffle", 0], value["shuffle", report.facts.n_layers - 1]]
        ends = [str(report.onsets[key]) for key in ("decodable_from", "used_from")]
        table.add_row(report.facts.model, *(f"{cell:.3f}" for cell in cells), *ends)
    return table
