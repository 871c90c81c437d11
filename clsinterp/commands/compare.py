"""``clsinterp compare``."""

from pathlib import Path
from typing import Annotated

import typer

from clsinterp.console import command, out_console


@command
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders, at least two.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.md, compare.parquet and compare.html.")] = Path(
        "compare"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs on different test images too; the table marks them.")
    ] = False,
) -> None:
    """Put runs side by side: gap between availability and use, onsets, costs, floors, with intervals.

    Examples:
        clsinterp compare runs/vit runs/deit
        clsinterp compare runs/photos runs/garments --force --out side-by-side
    """
    import pyarrow.parquet as pq
    from rich.table import Table

    from clsinterp.errors import RequestError
    from clsinterp.figures.compare import compare_figure
    from clsinterp.figures.files import save_figure
    from clsinterp.runs.compare import SHOWN, cells, markdown
    from clsinterp.runs.compare import compare as rows_of

    table = rows_of(runs, force)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"the folder {out} cannot be made ({error.strerror}); give another.") from error
    page = markdown(table)
    (out / "compare.md").write_text(page)
    pq.write_table(table, out / "compare.parquet")
    save_figure([compare_figure(table)], out / "compare.html")
    narrow = ("model", "n", "intact", "decodable_from", "used_from", "gap")
    kept = [i for i, name in enumerate(SHOWN) if name in narrow]
    shown = Table(title="Gap between availability and use, widest first", box=None, padding=(0, 1, 0, 0))
    for i in kept:
        shown.add_column(list(SHOWN.values())[i].replace(" ", "\n", 1))
    for line, row in zip(cells(table), table.to_pylist(), strict=True):
        mark = "" if row["same_data"] else " (!)"
        short = [cell.split(" [")[0] if name in ("intact",) else cell for name, cell in zip(SHOWN, line, strict=True)]
        shown.add_row(*(short[i] + (mark if i == kept[0] else "") for i in kept))
    out_console.print(shown)
    for note in page.split("\n\n")[1:]:
        out_console.print(note.strip(), soft_wrap=True, highlight=False)
    out_console.print(f"table: {out / 'compare.md'}", soft_wrap=True, highlight=False)
    out_console.print(f"figure: {out / 'compare.html'}", soft_wrap=True, highlight=False)
