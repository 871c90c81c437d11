"""``clsinterp experiments``."""

from clsinterp.console import command, out_console


@command
def experiments() -> None:
    """List the studies that stand as short scripts in the repository."""
    from rich.table import Table

    from clsinterp.commands.catalog import STUDIES

    table = Table("script", "asks", title="Experiments")
    for name, line in STUDIES.items():
        table.add_row(f"experiments/{name}.py", line)
    out_console.print(table)
    out_console.print(
        "In a clone of the repository: python experiments/NAME.py MODEL --data DATA --out DIR --limit N; --help says what "
        "each measures, experiments/README.md shows what it draws.",
        highlight=False,
    )
