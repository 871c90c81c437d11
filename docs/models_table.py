"""Writes the tables of docs/models.md from the family table: ``python docs/models_table.py``."""

from collections import defaultdict
from pathlib import Path

from clsinterp.models.described import COLUMNS, table
from clsinterp.models.rows.hf_refused import REFUSED

PAGE = Path(__file__).with_name("models.md")
BEGIN, END = "<!-- written by models_table.py -->", "<!-- end -->"


def tables() -> str:
    """The part of the page that is written by this script."""
    at = COLUMNS.index("classes")
    rows = [
        " | ".join(cell if i != at else ", ".join(f"`{cls}`" for cls in cell.split(", ")) for i, cell in enumerate(row))
        for row in table()
    ]
    why = defaultdict(list)
    for name, reason in REFUSED.items():
        why[reason].append(f"`{name}`")
    return "\n".join(
        [
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *(f"| {row} |" for row in rows),
            "",
            "## What does not load, and why",
            "",
            "Image encoders of `transformers`, by the beginning of their classes' names; of timm, see [timm](timm.md).",
            "",
            "| classes | why not |",
            "|---|---|",
            *(f"| {', '.join(names)} | {reason} |" for reason, names in sorted(why.items())),
        ]
    )


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
