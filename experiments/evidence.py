"""The evidence page: the real model's runs on photos, their tables, and a page whose every number comes from them.

    python experiments/evidence.py --photos FOLDER --runs runs/evidence   # runs what is missing, then writes docs/evidence*
    python experiments/evidence.py --runs runs/evidence                   # only the page, from runs that are there

FOLDER has `train` and `val` with ten class folders each. No photo is written anywhere: curves as CSV, the page, the picture.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from evidence_page import head_card, page

from clsinterp.cli import app
from clsinterp.figures.files import save_figure
from clsinterp.figures.headline import headline_figure
from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.wheels import SOURCES
from clsinterp.runs.compare import compare
from clsinterp.runs.results import Run, read_run

MODEL = "zoo/dinov2-small"
ROOT = Path(__file__).parents[1]
# name -> options after `clsinterp run zoo/dinov2-small --head fit`; PHOTOS stands for the folder.
RUNS = {
    "photos-224": "--data PHOTOS --image-size 224",
    "photos-112": "--data PHOTOS --image-size 112",
    "photos-112-cross-label": "--data PHOTOS --image-size 112 --mode cross_label",
    "photos-112-also": "--data PHOTOS --image-size 112 --test-per-class 50 --also erasure,rereading",
    "photos-112-zero": "--data PHOTOS --image-size 112 --cls-only zero",
    "photos-112-refit": "--data PHOTOS --image-size 112 --cls-only refit",
    "photos-56": "--data PHOTOS --image-size 56",
    "garments-112": "--data zoo --image-size 112",
}


def command(name: str, photos: str = "PHOTOS") -> list[str]:
    options = [photos if word == "PHOTOS" else word for word in shlex.split(RUNS[name])]
    return ["run", MODEL, "--head", "fit", *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder of class folders; without it nothing is run")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where the run folders are or go")
    args = parser.parse_args()
    found: dict[str, Run] = {}
    for name in RUNS:
        folder = args.runs / name
        if args.photos and not (folder / "run.json").exists():
            resume = ["--resume"] if folder.exists() else []
            app([*command(name, args.photos), "--out", str(folder), *resume], standalone_mode=False)
        if (folder / "run.json").exists():
            found[name] = read_run(folder)
        else:
            print(f"{name} is not there: its part of the page is left out", file=sys.stderr)
    tables = ROOT / "docs" / "evidence"
    tables.mkdir(exist_ok=True)
    for name, run in found.items():
        pa.csv.write_csv(run.curves.drop_columns(["model"]), tables / f"{name}.csv")
    # Nothing that is compared depends on how the other read-outs are turned off.
    alike = [name for name in found if "--cls-only" not in RUNS[name]]
    side_by_side = compare([args.runs / name for name in alike], force=True)
    commands = {name: shlex.join(["clsinterp", *command(name)]) for name in found}
    (ROOT / "docs" / "evidence.md").write_text(page(found, side_by_side, commands, SOURCES["dinov2-small"].what))
    first = found["photos-224"]
    zoo = ROOT / "clsinterp" / "zoo" / "dinov2-small"
    zoo.mkdir(exist_ok=True)
    head = replace(FittedHead.of_run(args.runs / "photos-224"), readouts=("cls", "patch_mean"))
    head.save(zoo / "head.safetensors")
    (zoo / "README.md").write_text(head_card(first, commands["photos-224"], SOURCES["dinov2-small"].what))
    layers = {name: onset.layer for name, onset in first.report.onsets.items()}
    save_figure([headline_figure(first.report.facts, first.curves, layers)], ROOT / "docs" / "headline.png")


if __name__ == "__main__":
    main()
