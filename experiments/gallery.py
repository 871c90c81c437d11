"""Run every study on the zoo and write the gallery: experiments/figures, experiments/tables, and experiments/README.md.

What each study found stands in the README between ``<!-- finding: NAME -->`` and ``<!-- end -->``; it is filled in from the
study's tidy table, which lies in tables/NAME.parquet beside the summary, tables/NAME.md. Write nothing there by hand.

A study whose run folder is there already is not run again (`--again` runs it), so an interrupted gallery goes on. With
`--figures-only` nothing is measured: figures and tables are written from the runs that are there.

    python experiments/gallery.py
    python experiments/gallery.py --only donors,note --limit 100 --out /tmp/try
"""

import argparse
import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import plotly.io as pio
import pyarrow.parquet as pq

from clsinterp.commands.experiments import STUDIES
from clsinterp.errors import ClsinterpError
from clsinterp.files import reading
from clsinterp.studies.findings import SENTENCES, TABLE

HERE = Path(__file__).parent
# What each study runs on; donors compares all models of the zoo.
MODELS = {"causality": ["zoo/counting"], "donors": ["zoo/vit", "zoo/deit", "zoo/beit", "zoo/dinov2", "zoo/clip"]}
WIDTH = 1200  # of a figure, in pixels
LINE = 127  # of the README, in characters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STUDIES), help="comma-separated names of studies")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"), help="where run folders go")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="figures/ and tables/ are written here, and README.md if there is one"
    )
    parser.add_argument("--models", nargs="*", help="instead of the zoo's; the first is used where a study takes one")
    parser.add_argument("--limit", type=int, help="first N train and test images only, for a quick try")
    parser.add_argument("--again", action="store_true", help="run studies again that have a run folder")
    parser.add_argument("--figures-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := set(names) - set(STUDIES):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}.")
    for folder in ("figures", "tables"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        run = args.runs / name
        if not args.figures_only and (args.again or not (run / "run.json").exists()):
            models = args.models or MODELS.get(name, ["zoo/vit"])
            words = [sys.executable, str(HERE / f"{name}.py"), *(models if name == "donors" else models[:1])]
            words += ["--out", str(run), "--overwrite", *(["--limit", str(args.limit)] if args.limit else [])]
            started = time.monotonic()
            if subprocess.run(words, check=False).returncode:
                failed.append(name)
                continue
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        if (run / "run.json").exists():
            try:
                with reading(run, "Run it again with --again."):
                    print(f"{name}: {write(run, name, args.out)} bytes of SVG", flush=True)
            except (ClsinterpError, FileNotFoundError) as error:
                print(error, file=sys.stderr)
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; start the same command again to go on.")


def write(run: Path, name: str, out: Path) -> int:
    """Figure, tables and finding of one run; returns the size of the figure."""
    figure = pio.from_json((run / "figure.json").read_text())
    svg = figure.to_image("svg", width=WIDTH).decode()
    svg = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", svg)  # hundredths of a pixel are enough
    (out / "figures" / f"{name}.svg").write_text(svg)
    (out / "tables" / f"{name}.md").write_text((run / "summary.md").read_text())
    table = pq.read_table(run / f"{TABLE.get(name, name)}.parquet")
    pq.write_table(table, out / "tables" / f"{name}.parquet")
    if (readme := out / "README.md").exists():
        notes = json.loads((run / "run.json").read_text())["notes"]
        readme.write_text(with_finding(readme.read_text(), name, SENTENCES[name](table, notes)))
    return len(svg)


def with_finding(readme: str, name: str, text: str) -> str:
    """`readme` with `text` in the marked block of study `name`."""
    start, end = f"<!-- finding: {name} -->\n", "\n<!-- end -->"
    before, found, rest = readme.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(
            f"README.md has no block from {start.strip()!r} to {end.strip()!r} to write what the study found into."
        )
    filled = textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)
    return before + start + filled + end + after


if __name__ == "__main__":
    main()
