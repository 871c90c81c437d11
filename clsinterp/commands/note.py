"""``clsinterp note``."""

from pathlib import Path
from typing import Annotated

import typer

from clsinterp.commands.run import summary
from clsinterp.console import DEVICE, DTYPE, command, err_console, out_console, progress_bars, quiet_libraries
from clsinterp.data.hub import refuse_missing


@command
def note(
    data: Annotated[str, typer.Option(help="ImageNet-1k: ILSVRC/imagenet-1k, or a folder of its class folders.")],
    out: Annotated[Path, typer.Option(help="A run folder for each of the five, and their figure.")] = Path("runs/note"),
    test_split: Annotated[str, typer.Option(help="ImageNet's split called test has no labels.")] = "validation",
    train_per_class: Annotated[int, typer.Option(help="Images of each class for the probes.")] = 200,
    limit: Annotated[
        int | None, typer.Option(help="First N train and first N test images only, for a dry run.")
    ] = None,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    memory_gb: Annotated[
        float | None, typer.Option(help="Budget for activations, per device.", show_default="half of what is free")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.", show_default="by cores")] = None,
) -> None:
    """Run the five published checkpoints with the note's settings and draw them over the published curves.

    Given again, it goes on where it was stopped; what is done is not done twice.

    Examples:
        clsinterp note --data ILSVRC/imagenet-1k
        clsinterp note --data ILSVRC/imagenet-1k --limit 256 --out runs/dry
    """
    if not out.exists():  # finished runs are drawn again without their data
        refuse_missing(data)  # before torch is imported
    quiet_libraries()
    from clsinterp.errors import RequestError
    from clsinterp.figures.files import save_figure
    from clsinterp.figures.note import study_figures
    from clsinterp.runs.cost import duration
    from clsinterp.runs.folder import RunFolder
    from clsinterp.runs.published import expected, requests
    from clsinterp.runs.request import Resources
    from clsinterp.runs.results import read_run
    from clsinterp.runs.run import run

    changes = {"test_split": test_split, "train_per_class": train_per_class, "limit": limit, "dtype": dtype}
    asked = requests(data, **changes)
    time = expected(*(() if limit is None else (limit, limit)))
    err_console.print(
        f"five checkpoints; at ImageNet's size and 224 pixels at least {duration(time.gpu)} on one {time.device} in float32, "
        f"{duration(time.here)} on this machine's CPU. It can be stopped at any moment: the same command goes on.",
        soft_wrap=True,
        highlight=False,
    )
    found = []
    for key, request in asked.items():
        folder = RunFolder(out / key)
        if not folder.is_done():
            err_console.print(request.model, style="bold", highlight=False)
            with progress_bars() as progress:
                run(
                    request, folder.path, resume=folder.path.exists(), progress=progress,
                    resources=Resources(device=device, memory_gb=memory_gb, workers=workers),
                )  # fmt: skip
        elif (there := read_run(folder.path).report.identity.request) != request:
            raise RequestError(
                f"{folder.path} is a run of {there.model} on {there.data} with other settings; give another out=, or remove it."
            )
        found.append(read_run(folder.path))
    page = out / "figure.html"
    save_figure(study_figures([(report.facts, curves) for report, curves in found], published=True), page)
    for report, _ in found:
        out_console.print(summary(report), soft_wrap=True, highlight=False)
    out_console.print(f"figure: {page}", soft_wrap=True, highlight=False)
