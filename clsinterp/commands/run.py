"""``clsinterp demo`` and ``clsinterp run``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clsinterp.commands.table import run_table
from clsinterp.console import (
    ALLOW_PICKLE,
    CLASSES,
    CONFIG,
    DEVICE,
    DTYPE,
    HOST,
    MODEL,
    PER_REQUEST,
    REMOTE,
    TEMPLATES,
    command,
    out_console,
    progress_bars,
    quiet_libraries,
    server_of,
)
from clsinterp.data.hub import refuse_missing
from clsinterp.errors import RequestError
from clsinterp.models.source import found
from clsinterp.parse import parse_config, parse_layers, parse_names, parse_numbers

if TYPE_CHECKING:
    from clsinterp.runs.report import Report

OUT = Annotated[Path | None, typer.Option(help="Run folder; default runs/MODEL.", show_default=False)]


@command
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
        Literal["permute", "derange", "cross_label", "mean", "zero", "noise", "normal"],
        typer.Option(help="The first three swap tokens between images; the others put something in their place."),
    ] = "permute",
    group: Annotated[
        str, typer.Option(help="Whose tokens: cls, registers, distill, patches, or several such as cls+distill.")
    ] = "cls",
    swaps: Annotated[int, typer.Option(help="Permutations (or draws) per batch; bands cover them.")] = 1,
    layers: Annotated[str, typer.Option(help="Layers such as 0,3,11 or 0-3, or all; -1 is before block 0.")] = "all",
    final_norm: Annotated[
        bool, typer.Option("--final-norm/--no-final-norm", help="Whether the lens applies the final norm.")
    ] = True,
    head: Annotated[
        Literal["auto", "own", "fit", "text"],
        typer.Option(help="The checkpoint's classifier, one fitted here, or class names through its text tower."),
    ] = "auto",
    classes: CLASSES = None,
    template: TEMPLATES = None,
    label_map: Annotated[
        Path | None,
        typer.Option(help="JSON object or two-column CSV: label of the data, the model's class.", show_default=False),
    ] = None,
    cls_only: Annotated[
        Literal["mean", "zero", "refit"],
        typer.Option(help="CLS-only curves: other read-outs at their mean, at zero (the note), or a CLS-only head."),
    ] = "mean",
    alphas: Annotated[
        str | None,
        typer.Option(
            help="Penalties to choose from, such as 0.01,1,100, times the features' variance.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels, for families that take any size.", show_default="the checkpoint's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images, their order and the swaps.")] = 0,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    device_map: Annotated[
        str | None, typer.Option(help="auto spreads one model over all GPUs, if it is too large for one.")
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(help="Budget for activations, per device.", show_default="half of what is free"),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="One part of N, counted from 1; all use the same --out.")
    ] = None,
    stage: Annotated[
        Literal["all", "train"], typer.Option(help="train ends after the train pass, for job chains.")
    ] = "all",
    wait: Annotated[float, typer.Option(help="Minutes a shard waits for the train parts of others.")] = 0.0,
    engine: Annotated[
        Literal["local", "processes", "ray"], typer.Option(help="local also uses every visible GPU.")
    ] = "local",
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", help="Workers of the other engines.", show_default="by GPUs or cores")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, or auto.", show_default="one on this machine")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.", show_default="by cores")] = None,
    limit: Annotated[
        int | None, typer.Option(help="First N train and first N test images only, for a dry run.")
    ] = None,
    out: OUT = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run, or help one that is being worked on.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")] = None,
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
    also: Annotated[
        str | None,
        typer.Option(help="Measured beside the note: erasure, rereading.", metavar="NAME,..", show_default=False),
    ] = None,
    on_bad_image: Annotated[Literal["error", "skip"], typer.Option(help="What an unreadable image does.")] = "error",
    image_column: Annotated[str | None, typer.Option(help="Column of the images, where it cannot be told.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels, where it cannot be told.")] = None,
    remote: REMOTE = False,
    host: HOST = None,
    per_request: PER_REQUEST = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars and no table.")] = False,
) -> None:
    """Measure, per layer, where the label can be read from CLS and where the output depends on it.

    Examples:
        clsinterp run zoo/vit --data zoo --limit 200
        clsinterp run facebook/dinov2-base --data photos --head fit --train-per-class 50 --out runs/photos
        clsinterp run zoo/vit --data zoo --layers 0-3 --mode derange --swaps 4 --out runs/swaps
        clsinterp run zoo/vit --data zoo --shard 1/4 --out runs/shards
    """
    if resume and overwrite:
        raise RequestError("--resume and --overwrite were both given; choose one.")
    found(model)  # before torch is imported
    refuse_missing(data)
    from clsinterp.runs.request import Request, Resources, Scope, default_out
    from clsinterp.runs.units import Shard

    request = Request(
        model=model,
        data=data,
        train_split=train_split,
        test_split=test_split,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        batch_size=batch_size,
        mode=mode,
        group=group,
        swaps=swaps,
        layers=parse_layers(layers),
        final_norm=final_norm,
        head=head,
        classes=parse_names(classes),
        templates=tuple(template) if template else None,
        label_map=label_map,
        cls_only=cls_only,
        alphas=parse_numbers(alphas),
        seed=seed,
        limit=limit,
        dtype=dtype,
        revision=revision,
        allow_pickle=allow_pickle,
        on_bad_image=on_bad_image,
        image_column=image_column,
        label_column=label_column,
        image_size=image_size,
        config=parse_config(config),
        also=tuple(name.strip() for name in also.split(",")) if also is not None else (),
    )
    execute(
        request,
        out or default_out(model),
        resume=resume,
        overwrite=overwrite,
        scope=Scope(Shard.parse(shard) if shard is not None else None, stage, wait),
        resources=Resources(
            device, device_map, memory_gb, workers=workers, server=server_of(remote, host, per_request)
        ),
        engine=engine,
        jobs=jobs,
        address=address,
        quiet=quiet,
    )


def execute(request: Any, out: Path, quiet: bool = False, **options: Any) -> None:
    """Run with progress bars, then print the table and where the figure is."""
    quiet_libraries()
    from clsinterp.runs.run import run as run_experiment

    with progress_bars(quiet) as progress:
        folder = run_experiment(request, out, progress=progress, **options)
    if not quiet:
        show(folder)


def show(folder: Path) -> None:
    """Print a finished run's table and where its figure is, or how far an unfinished one is."""
    from clsinterp.runs.folder import RunFolder
    from clsinterp.runs.results import read_run

    if not RunFolder(folder).is_done():
        out_console.print(
            f"{folder}: this part is done, others are not; the last one, or clsinterp merge {folder}, makes the tables.",
            soft_wrap=True,
            highlight=False,
        )
        return
    report, curves = read_run(folder)
    out_console.print(run_table(report, curves))
    out_console.print(summary(report), soft_wrap=True, highlight=False)
    out_console.print(f"figure: {folder / 'figure.html'}", soft_wrap=True, highlight=False)


def summary(report: "Report") -> str:
    """Where the label is decodable from and where the output uses it from, in a sentence or two."""
    decodable, used = (report.onsets[key] for key in ("decodable_from", "used_from"))
    if decodable.reason and decodable.reason == used.reason:
        return f"{report.facts.model}: no verdict, since {used.reason}."
    read = f"no layer to decode from, since {decodable.reason}"
    read = read if decodable.reason else f"the label is decodable from layer {decodable}"
    use = f"no verdict on use, since {used.reason}"
    if not used.reason:
        use = f"used from layer {used}" if used.layer is not None else "no swap costs half of what it could"
    return f"{report.facts.model}: {read}; {use}."
