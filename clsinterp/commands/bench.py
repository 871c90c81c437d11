"""``clsinterp bench``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clsinterp.console import command, err_console, out_console, quiet_libraries


@command
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, few repeats: under two minutes.")] = False,
    only: Annotated[str | None, typer.Option(help="Groups such as fork,probes.", show_default="all of them")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table to FILE.parquet.")] = None,
) -> None:
    """Measure speed and memory here, as ratios against other ways to do the same.

    Examples:
        clsinterp bench --quick
        clsinterp bench --only fork,probes --out bench.parquet
    """
    quiet_libraries()
    import torch
    from rich.table import Table

    from clsinterp.bench.table import GROUPS, measure

    with err_console.status("measuring") as status:
        groups = only.split(",") if only else list(GROUPS)
        rows = measure(groups, quick, progress=lambda group: status.update(f"measuring: {group}"))
    table = Table("what", "against", "ratio (range)", "ours", "theirs", "target", "met")
    for row in rows:
        sides = (f"{side:.3g} {row.unit}" if row.span else "" for side in (row.ours, row.theirs))
        table.add_row(
            row.what, row.against, row.span, *sides, row.target, {True: "yes", False: "no", None: ""}[row.met]
        )
    out_console.print(table)
    out_console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", highlight=False)
    if out is not None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([{**asdict(row), "met": row.met} for row in rows]), out)
        out_console.print(f"table: {out}", highlight=False, soft_wrap=True)
