"""How fast, against what, in one run on the machine at hand: ``clsinterp bench`` under the name users look for.

python experiments/bench.py [--quick] [--only fork,probes,..] [--out bench.parquet]
python experiments/bench.py --page [--quick] [GROUP..]  # docs/speed.json, and from it the table of docs/speed.md

The page keeps the rows of groups that are not named. Its patching rows want TransformerLens.
"""

import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from clsinterp.bench.table import GROUPS, measure
from clsinterp.bench.timing import Row
from clsinterp.cli import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
START, END = "<!-- measured -->", "<!-- end -->"


def table(rows: list[dict]) -> str:
    """Rows as a table."""
    lines = ["| what | against | ratio (range) | target |", "|---|---|---|---|"]
    for row in (Row(**row) for row in rows):
        missed = ", missed" if row.met is False else ""
        lines.append(f"| {row.what} | {row.against} | {row.span} | {row.target}{missed} |")
    return "\n".join(lines)


def tables(groups: dict[str, dict]) -> str:
    """A table for each way in which groups were measured, in the order of the bench."""
    by_machine: dict[str, list[dict]] = {}
    for name in GROUPS:
        if name in groups:
            by_machine.setdefault(groups[name]["machine"], []).extend(groups[name]["rows"])
    return "\n\n".join(f"Measured on {machine}:\n\n{table(rows)}" for machine, rows in by_machine.items())


def put_into(page: str, groups: dict[str, dict]) -> str:
    """`page` with its tables made anew."""
    before, after = page.split(START)[0], page.split(END)[1]
    return f"{before}{START}\n\n{tables(groups)}\n\n{END}{after}"


def write_page(asked: list[str], quick: bool) -> None:
    """Measure the groups that are asked for, all of them by default, one after the other; write after each."""
    import torch

    kept, page = DOCS / "speed.json", DOCS / "speed.md"
    size = "small sizes, few repeats" if quick else "full sizes"
    machine = f"{platform.machine()}, torch {torch.__version__}, threads: {torch.get_num_threads()}, {size}"
    for name in asked or GROUPS:
        group = {"machine": machine, "rows": [asdict(row) for row in measure([name], quick)]}
        groups = (json.loads(kept.read_text()) if kept.exists() else {}) | {name: group}
        kept.write_text(json.dumps(groups, indent=1) + "\n")
        page.write_text(put_into(page.read_text(), groups))


if __name__ == "__main__":
    if "--page" in sys.argv:
        write_page([word for word in sys.argv[1:] if not word.startswith("-")], "--quick" in sys.argv)
    else:
        app(["bench", *sys.argv[1:]])
