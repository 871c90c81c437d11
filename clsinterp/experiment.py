"""The note as one run: data and model -> ridge statistics -> probes -> one fork per test batch -> curves. Resumable.

A run that is killed at any moment and resumed ends with the same tables, to the bit.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from clsinterp.figures import run_figure, to_html
from clsinterp.fitting import fit
from clsinterp.measuring import measure
from clsinterp.memory import images_at_once
from clsinterp.remote.server import Server, Traffic
from clsinterp.remote.traffic import counted
from clsinterp.request import Progress, Request
from clsinterp.results import RunFolder, curves_table
from clsinterp.study import Study


def run(
    request: Request,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    memory_gb: float | None = None,
    workers: int | None = None,
    server: Server | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """Run the whole note and return the run folder, laid out as the README says.

    Args:
        request: what to do.
        out: the folder; it must not exist, unless `resume` or `overwrite`.
        resume: go on with the run in `out`; the request must be the same.
        overwrite: replace the run in `out`.
        device: where the model runs.
        memory_gb: budget for the fork's activations; default half of what is free. Changes speed, not results.
        workers: processes that decode images; default by the number of cores.
        server: an NDIF server that has the model; batches go there, ranks come down.
        progress: called with (stage, images done, images in all).

    Raises:
        RequestError: the request cannot be done; nothing has been written then.
        RunError: it failed on the way (NaN, disk full); `resume` goes on.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds[stage] = round(time.monotonic() - start, 3)

    request.check()
    if server is not None:
        server = replace(server, traffic=Traffic())  # the run's own, whatever the server was used for before
    folder = RunFolder(Path(out))
    folder.refuse_unfit(resume, overwrite)  # before anything is loaded
    with timed("load"):
        study = Study.of(request, device, workers, server)
        height, width = study.model.pixels(study.test.image(0)).shape[-2:]
        at_once = images_at_once(study.model, height, width, len(study.layers), memory_gb)
    identity = study.identity()
    if folder.begin(identity, resume, overwrite):
        return folder.path
    with folder.lock(), counted(server, folder):
        with timed("train"):
            readers, ridge = fit(study, folder, progress)
        with timed("test"):
            images = measure(study, folder, readers, at_once, progress)
        facts = study.facts(readers.head)
        with timed("tables and figure"):
            curves = curves_table(images, facts)
            folder.write_table(folder.path / "images.parquet", images)
            folder.write_table(folder.path / "curves.parquet", curves)
            page = to_html(run_figure(curves, facts))
            folder.write(folder.path / "figure.html", lambda p: p.write_text(page))
        manifest = {**facts, "identity": identity, **study.manifest(images, ridge), "seconds": seconds}
        if server is not None:
            manifest["remote"] |= asdict(server.traffic)
        folder.write_json(folder.path / "run.json", manifest)
        folder.finish()
    return folder.path
