"""The command line every study has, and the run folder it leaves."""

import argparse
import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from clsinterp.console import as_options, err_console, log_lines, out_console, quiet_libraries
from clsinterp.data.label_map import read_label_map
from clsinterp.errors import ClsinterpError, RequestError
from clsinterp.figures.files import numbered, to_html
from clsinterp.files import file_hash
from clsinterp.runs.belongings import STUDY_FILES
from clsinterp.runs.folder import IN_USE, RunFolder
from clsinterp.runs.ranges import refuse_outside
from clsinterp.signals import ending_as_interrupts, exit_status
from clsinterp.studies.setup import Setup
from clsinterp.studies.shown import Recorded


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        summary: the table that is printed, few rows and columns.
        figures: the one for the gallery first.
        tables: name -> everything that was measured; each becomes NAME.parquet.
        notes: sentences printed under the table.
    """

    summary: pa.Table
    figures: Sequence[go.Figure]
    tables: dict[str, pa.Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def study(
    *,
    model: str = "zoo/vit",
    several: bool = False,
    options: dict[str, dict[str, Any]] | None = None,
    opener: Callable[..., Setup] = Setup.open,
) -> Callable[[Callable[..., Findings]], Callable[..., None]]:
    """Make a script's main function of one that measures.

    The function is called with a `Setup` (an iterator of them, loaded one after the other, under `several`) and the
    parsed arguments. Around it: ``NAME.py MODEL --data DATA --out DIR --limit N``, errors as one line and an exit status,
    the printed summary, and a run folder with ``run.json``, ``summary.parquet``, ``summary.md``, the tables and
    ``figure.html``.

    Args:
        model: used when the command line names none.
        several: MODEL may be given more than once.
        options: more options, as for ``ArgumentParser.add_argument``.
        opener: makes the setup of a model and data.
    """

    def wrap(measure: Callable[..., Findings]) -> Callable[..., None]:
        script = Path(inspect.getfile(measure))

        @functools.wraps(measure)
        def main(argv: Sequence[str] | None = None) -> None:
            parser = argparse.ArgumentParser(
                prog=script.name, description=inspect.getdoc(sys.modules[measure.__module__]),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )  # fmt: skip
            _common(parser, model, several, script.stem)
            for name, settings in (options or {}).items():
                parser.add_argument(name, **settings)
            args = parser.parse_args(argv)
            flags = {name: f"--{name.replace('_', '-')}" for name in vars(args) if name != "model"}
            log_lines(flags)
            try:
                with ending_as_interrupts():
                    _run(measure, script.stem, args, several, opener)
            except ClsinterpError as error:
                said = f"{script.name}: {as_options(str(error), flags)}"
                err_console.print(said, style="bold red", markup=False, highlight=False, soft_wrap=True)
                sys.exit(error.exit_status)
            except KeyboardInterrupt as error:
                err_console.print(f"{script.name}: stopped; nothing was written.", style="bold red", highlight=False)
                sys.exit(exit_status(error))

        return main

    return wrap


def _common(parser: argparse.ArgumentParser, model: str, several: bool, name: str) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="*" if several else "?", default=[model] if several else model,
        help=f"hub id, checkpoint folder or zoo/NAME; default {model}",
    )  # fmt: skip
    parser.add_argument("--data", default="zoo", help="zoo (the shipped sample), folder, parquet or hub id")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help=f"run folder; default runs/{name}")
    parser.add_argument(
        "--head", choices=["auto", "own", "fit"], default="auto",
        help="the checkpoint's classifier (own), one fitted on the train images (fit), or own where its classes are the data's",
    )  # fmt: skip
    parser.add_argument(
        "--classifier", type=Path, help="run folder or saved head, put in the place of the checkpoint's own classifier"
    )
    parser.add_argument("--label-map", type=Path, help="file: the model's class of every label of the data")
    parser.add_argument("--train-per-class", type=int, help="train images of each class; default all")
    parser.add_argument("--test-per-class", type=int, help="test images of each class; default all")
    parser.add_argument("--limit", type=int, help="first N train and first N test images only")
    parser.add_argument(
        "--image-size", type=int, help="side in pixels, for families that take any size; default the checkpoint's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--batch-size", type=int, default=128, help="images per batch; swaps happen within one")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="auto (float32), float32, float16, bfloat16")
    parser.add_argument("--workers", type=int, help="processes that decode images; default by the number of cores")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")


def _run(
    measure: Callable[..., Findings], name: str, args: argparse.Namespace, several: bool, opener: Callable[..., Setup]
) -> None:
    numbers = ("limit", "train_per_class", "test_per_class", "image_size", "seed", "batch_size", "workers")
    refuse_outside(**{number: getattr(args, number) for number in numbers})
    quiet_libraries()
    folder = RunFolder(args.out)
    folder.refuse_unfit(resume=False, overwrite=args.overwrite)
    started = time.monotonic()
    opened: list[dict[str, Any]] = []

    def setups() -> Iterator[Setup]:
        for model in args.model if several else [args.model]:
            setup = opener(
                model, args.data, limit=args.limit, seed=args.seed, batch_size=args.batch_size, workers=args.workers,
                train_per_class=args.train_per_class, test_per_class=args.test_per_class, image_size=args.image_size,
                classifier=args.classifier,
                bars=_bars, device=args.device, dtype=args.dtype, head=args.head,
                label_map=None if args.label_map is None else read_label_map(args.label_map),
            )  # fmt: skip
            if setup.name in [one["model"] for one in opened]:
                raise RequestError(f"two models are called {setup.name}; tables could not tell them apart.")
            opened.append(_described(setup))
            yield setup

    findings = measure(setups() if several else next(setups()), args)
    identity = {"study": name, **{k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}}
    tables = {f"{stem}.parquet": table for stem, table in {**findings.tables, "summary": findings.summary}.items()}
    # As JSON too: what redraws a figure (the gallery, an editor) need not measure again.
    drawn = {numbered(Path("figure.json"), i).name: fig.to_json() for i, fig in enumerate(findings.figures)}
    folder.begin({"identity": identity, "files": [*tables, *drawn]}, resume=False, overwrite=args.overwrite)
    with folder.alone(IN_USE) as free:
        if not free:
            raise RequestError(f"another run is writing into {args.out}; choose another out=.")
        for file, table in tables.items():
            folder.write_table(args.out / file, table)
        folder.write(args.out / "summary.md", lambda p: p.write_text(markdown(findings.summary, findings.notes)))
        folder.write(args.out / "figure.html", lambda p: p.write_text(to_html(findings.figures)))
        for file, text in drawn.items():
            folder.write(args.out / file, functools.partial(Path.write_text, data=text))
        packages = {p: version(p) for p in ("clsinterp", "torch", "nnsight", "transformers")}
        seconds = round(time.monotonic() - started, 1)
        manifest = {"identity": identity, "models": opened, "notes": findings.notes, "versions": packages}
        written = {file: file_hash(args.out / file) for file in sorted({*tables, *STUDY_FILES, *drawn})}
        folder.write_json(args.out / "run.json", {**manifest, "seconds": seconds, "files": written})
        folder.finish()
    _show(name, findings, args.out)


def _described(setup: Setup) -> dict[str, Any]:
    return {
        **setup.facts(),
        **Recorded.of(setup).facts(),
        "weights": setup.model.checkpoint.fingerprint(),
        "head": setup.match.how,
        "train": {"n": len(setup.train), "fingerprint": setup.train.fingerprint()},
        "test": {"n": len(setup.test), "fingerprint": setup.test.fingerprint()},
    }


def _bars(batches: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    return iter(
        track(
            batches, what or "images", total, console=err_console, transient=True, disable=not err_console.is_terminal
        )
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "none" if value != value else f"{value:.3f}"
    return str(value)


def _show(name: str, findings: Findings, out: Path) -> None:
    shown = Table(*findings.summary.column_names, title=name)
    for row in findings.summary.to_pylist():
        shown.add_row(*map(_cell, row.values()))
    # A pipe has no width: rich would cut the columns to 80 characters.
    wide = out_console if out_console.is_terminal else Console(width=200)
    wide.print(shown)
    for note in findings.notes:
        wide.print(note, highlight=False)
    out_console.print(f"figure: {out / 'figure.html'}", soft_wrap=True, highlight=False)


def markdown(table: pa.Table, notes: Sequence[str] = ()) -> str:
    """`table` as a Markdown table, with `notes` under it."""
    lines = [table.column_names, ["---"] * table.num_columns]
    lines += [[_cell(value) for value in row.values()] for row in table.to_pylist()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return text + "".join(f"\n{note}\n" for note in notes)
