"""Run every study and write the gallery: experiments/figures, experiments/tables, and experiments/README.md.

It has three parts. The first is the zoo's: small models that ship, on the images that ship. The second, `--photos FOLDER`, is
the real backbone `zoo/dinov2-small` (`clsinterp zoo fetch dinov2-small`) on a folder of photos; `PHOTOS` says with which options,
and how many photos, each study is run. One head is fitted on all train photos first, and every study is given it. No photo, and
no picture that shows one, is written anywhere but into the run folders. The third, `--controls`, is the zoo again with one thing
changed, where the first two could differ by that thing alone.

What each study found stands in the README between ``<!-- finding: NAME -->`` (or ``NAME, photos``, ``NAME, control``) and
``<!-- end -->``; it is filled in from the study's tidy table, which lies in tables/NAME.parquet beside the summary,
tables/NAME.md. Write nothing there by hand.

A study whose run folder is there already is not run again (`--again` runs it), so an interrupted gallery goes on. With
`--figures-only` nothing is measured, and no run folder is needed: figures and findings are made again from the tables that
stand in tables/, so a change of the drawing or of a sentence shows at once. (The note's and rereading's figures are drawn when
they are run.)

    python experiments/gallery.py
    python experiments/gallery.py --photos PHOTOS
    python experiments/gallery.py --controls
    python experiments/gallery.py --only donors,note --limit 100 --out /tmp/try
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kaleido
import plotly.graph_objects as go
import plotly.io as pio
import pyarrow as pa
import pyarrow.parquet as pq

from clsinterp.commands.experiments import STUDIES
from clsinterp.errors import ClsinterpError
from clsinterp.files import reading
from clsinterp.studies.drawn import DRAWN
from clsinterp.studies.findings import SENTENCES, TABLE
from clsinterp.studies.shown import Recorded

HERE = Path(__file__).parent
# What each study of the first part runs on; donors compares all models of the zoo.
MODELS = {"causality": ["zoo/counting"], "donors": ["zoo/vit", "zoo/deit", "zoo/beit", "zoo/dinov2", "zoo/clip"]}
# Second part: the model at one size, and for each study how many photos of each of the ten classes, and what else it takes.
BACKBONE, SIZE = "zoo/dinov2-small", 112
PHOTOS = {
    "note": "--train-per-class 100 --test-per-class 50",
    "restoration": "--train-per-class 40 --test-per-class 15",
    "readouts": "--train-per-class 100 --test-per-class 30",
    "class_space": "--train-per-class 60 --test-per-class 10 --tokens 8 --perturbed 60",
    "causality": "--data zoo --limit 120 --head fit --all-pairs",
    "frequency": "--train-per-class 30 --test-per-class 20 --draws 1",
    "ablations": "--train-per-class 2 --test-per-class 20",
    "donors": "--train-per-class 100 --test-per-class 50",
    "erasure": "--train-per-class 100 --test-per-class 20",
    "subspace": "--train-per-class 100 --test-per-class 20 --draws 3",
    "head_patching": "--train-per-class 2 --pairs 12 --classes 'golf ball,church'",
    "rereading": "--train-per-class 100 --test-per-class 30",
}
# Third part: what is changed. The backbone has no head of its own; the one it is given is a ridge fit, as the probes are.
CONTROLS = {"subspace": "--head fit"}
HEAD = "head.safetensors"
MORE = {"readouts": ["agreement"]}  # tables that a figure needs besides the study's own
WIDTH = 1200  # of a figure, in pixels
LINE = 127  # of the README, in characters


@dataclass(frozen=True)
class Part:
    """One part of the gallery.

    Attributes:
        folder: under figures/ and tables/ that it writes into; after a study's name in the README's marks.
        runs: where its run folders go.
        words: of a study, what stands on the command line after the script's name.
        before: makes what the studies need.
    """

    folder: str
    runs: Path
    words: Callable[[str], Sequence[str]]
    before: Callable[[], None] = lambda: None

    def mark(self, name: str) -> str:
        """What the README calls a study's finding."""
        return f"{name}, {self.folder}" if self.folder else name

    def place(self, out: Path, kind: str, name: str) -> Path:
        """Where a file of study `name` goes; `kind` is figures or tables."""
        return out / kind / self.folder / name


def zoo(runs: Path, given: Sequence[str] | None) -> Part:
    """The first part, on `given` models instead of the zoo's if there are any."""

    def words(name: str) -> Sequence[str]:
        models = given or MODELS.get(name, ["zoo/vit"])
        return models if name == "donors" else models[:1]

    return Part("", runs, words)


def photos(runs: Path, folder: str, given: Sequence[str] | None) -> Part:
    """The second part, on the photos in `folder`."""
    runs = runs / "photos"
    model, head = (given or [BACKBONE])[0], runs / HEAD

    def fit() -> None:
        if not head.exists():
            from clsinterp import VisionModel

            runs.mkdir(parents=True, exist_ok=True)
            VisionModel(model, image_size=SIZE).fit_head(folder).save(head)

    def words(name: str) -> Sequence[str]:
        options = shlex.split(PHOTOS[name])
        fitted = [] if "--head" in options else ["--classifier", str(head)]
        return [model, "--data", folder, "--image-size", str(SIZE), *fitted, *options]

    return Part("photos", runs, words, fit)


def controls(runs: Path, given: Sequence[str] | None) -> Part:
    """The third part."""

    def words(name: str) -> Sequence[str]:
        return [*zoo(runs, given).words(name), *shlex.split(CONTROLS[name])]

    return Part("control", runs / "control", words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--photos", metavar="FOLDER", help="the second part, on these photos, instead of the first")
    parts.add_argument("--controls", action="store_true", help="the third part instead of the first")
    parser.add_argument("--only", help="comma-separated names of studies; all of the part by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"), help="where run folders go")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="figures/ and tables/ are written here, and README.md if there is one"
    )
    parser.add_argument(
        "--models", nargs="*", help="instead of the gallery's; the first is used where a study takes one"
    )
    parser.add_argument("--limit", type=int, help="first N train and test images only, for a quick try")
    parser.add_argument("--again", action="store_true", help="run studies again that have a run folder")
    parser.add_argument("--figures-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    able = CONTROLS if args.controls else STUDIES
    names = list(able) if args.only is None else [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := set(names) - set(able):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(able)}.")
    if args.photos:
        part = photos(args.runs, args.photos, args.models)
    else:
        part = (controls if args.controls else zoo)(args.runs, args.models)
    for kind in ("figures", "tables"):
        part.place(args.out, kind, "").mkdir(parents=True, exist_ok=True)
    if not args.figures_only:
        part.before()
    failed = []
    warnings.filterwarnings("ignore", "The kopts argument")  # plotly's to a browser of its own
    kaleido.start_sync_server(silence_warnings=True)  # one browser for all figures
    for name in names:
        run = part.runs / name
        if not args.figures_only and (args.again or not (run / "run.json").exists()):
            words = [sys.executable, str(HERE / f"{name}.py"), *part.words(name)]
            words += ["--out", str(run), "--overwrite", *(["--limit", str(args.limit)] if args.limit else [])]
            started = time.monotonic()
            if subprocess.run(words, check=False).returncode:
                failed.append(name)
                continue
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        try:
            if not args.figures_only:
                with reading(run, "Run it again with --again."):
                    keep(part, name, args.out)
            if part.place(args.out, "tables", f"{name}.parquet").exists():
                show(part, name, args.out)
        except (ClsinterpError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            failed.append(name)
    kaleido.stop_sync_server(silence_warnings=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; start the same command again to go on.")


def keep(part: Part, name: str, out: Path) -> None:
    """Copy what a run found into tables/; its figure too where tables do not say all that is drawn."""
    run = part.runs / name
    facts = json.loads((run / "run.json").read_text())
    summary = (run / "summary.md").read_text()
    if part.folder == "photos":  # every study of the zoo is on all images that ship
        summary += f"\n{sizes(facts)}\n"
    part.place(out, "tables", f"{name}.md").write_text(summary)
    for stem, file in kept(name).items():
        pq.write_table(pq.read_table(run / f"{stem}.parquet"), part.place(out, "tables", file))
    if name in DRAWN:
        models = [Recorded.read(model).facts() for model in facts["models"]]
        part.place(out, "tables", f"{name}.json").write_text(json.dumps(models, indent=1) + "\n")
    else:
        draw(part, name, out, pio.from_json((run / "figure.json").read_text()))


def kept(name: str) -> dict[str, str]:
    """Tables of a run of study `name` -> their files in tables/."""
    more = {stem: f"{name}-{stem}.parquet" for stem in MORE.get(name, ())}
    return {TABLE.get(name, name): f"{name}.parquet", **more}


def show(part: Part, name: str, out: Path) -> None:
    """Figure and finding of a study, from its tables."""
    tables = {stem: pq.read_table(part.place(out, "tables", file)) for stem, file in kept(name).items()}
    if name in DRAWN:
        models = json.loads(part.place(out, "tables", f"{name}.json").read_text())
        draw(part, name, out, DRAWN[name](tables, [Recorded.read(model) for model in models]))
    if (readme := out / "README.md").exists():
        said = notes(part.place(out, "tables", f"{name}.md").read_text())
        text = finding(name, next(iter(tables.values())), said)
        readme.write_text(with_finding(readme.read_text(), part.mark(name), text))


def draw(part: Part, name: str, out: Path, figure: go.Figure) -> None:
    """Write a figure as SVG; one that shows an image is refused, since photos must not be kept."""
    if figure.layout.images or any(trace.type == "image" for trace in figure.data):
        sys.exit(f"the figure of {name} shows an image, which the gallery must not keep; draw it from tables only.")
    svg = figure.to_image("svg", width=WIDTH).decode()
    svg = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", svg)  # hundredths of a pixel are enough
    part.place(out, "figures", f"{name}.svg").write_text(svg)
    print(f"{name}: {len(svg)} bytes of SVG", flush=True)


def notes(summary: str) -> list[str]:
    """The sentences under the table of a summary."""
    return [line for line in summary.splitlines() if line and not line.startswith("|")]


def sizes(facts: dict) -> str:
    """How much a run was measured on, from its ``run.json``."""
    (model,), asked = facts["models"], facts["identity"]
    size = asked["image_size"]
    n = {split: f"{model[split]['n']:,}" for split in ("train", "test")}
    fitted = f"what was fitted besides the head, on {n['train']} train images"
    if "pairs" in asked:
        return f"Measured on {asked['pairs']} pairs of {n['test']} test images, of {size} pixels; no probe was fitted."
    return f"Measured on {n['test']} test images of {size} pixels; {fitted}."


def finding(name: str, table: pa.Table, said: Sequence[str]) -> str:
    """What a study found, and on how many images if its summary says so."""
    measured = [note for note in said if note.startswith("Measured on ")]
    return " ".join([SENTENCES[name](table, said), *measured])


def with_finding(readme: str, name: str, text: str) -> str:
    """`readme` with `text` in the marked block of study `name`."""
    start, end = f"<!-- finding: {name} -->\n", "<!-- end -->"
    before, found, rest = readme.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(
            f"README.md has no block from {start.strip()!r} to {end.strip()!r} to write what the study found into."
        )
    filled = textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)
    return f"{before}{start}{filled}\n{end}{after}"


if __name__ == "__main__":
    main()
