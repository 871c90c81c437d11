"""The note as one run: data and model -> ridge statistics -> probes -> one fork per test batch -> curves.

A run that is killed at any moment and resumed, or split over shards, processes or machines, ends with the same tables,
to the bit: see `clsinterp.runs.units`.
"""

import time
from dataclasses import replace
from pathlib import Path

from clsinterp.data.content import Memory
from clsinterp.errors import RequestError
from clsinterp.remote.server import Traffic
from clsinterp.runs.belongings import SEEN
from clsinterp.runs.engines import engine_for
from clsinterp.runs.engines.task import Task
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.repair import DRAWN, lost, redraw_lost, reopen
from clsinterp.runs.request import Progress, Request, Resources, Scope
from clsinterp.runs.worker import Worker, images_for
from clsinterp.runs.workload import Workload


def run(
    request: Request,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    scope: Scope | None = None,
    resources: Resources | None = None,
    engine: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Path:
    """Run the whole note, or a part of it, and return the run folder, laid out as the README says.

    Args:
        request: what to do.
        out: the folder; it must not exist, unless `resume` or `overwrite`, or `scope` is a shard.
        resume: go on with the run in `out`, or join it if it is being worked on; the request must be the same.
        overwrite: replace the run in `out`.
        scope: how much of it to do; default all.
        resources: what to compute with. Changes speed, not results.
        engine: ``local`` (this process, or one process per GPU where there are several), ``processes`` or ``ray``.
        jobs: workers of the engines that have several.
        address: of a running Ray cluster.
        progress: called with (stage, images done, images in all).

    Raises:
        RequestError: the request cannot be done; nothing has been written then.
        RunError: it failed on the way (NaN, disk full); `resume` goes on.
        TooEarly: a shard waits for parts of others.
    """
    scope, resources = scope or Scope(), resources or Resources()
    for part in (request, resources, scope):
        part.check()
    if resources.server is not None:  # the run's own traffic, whatever the server was used for before
        resources = replace(resources, server=replace(resources.server, traffic=Traffic()))
    folder = RunFolder(Path(out))
    joins = resume or (scope.shard is not None and not overwrite)
    folder.refuse_unfit(joins, overwrite)  # before anything is loaded
    workers = engine_for(engine, resources, jobs, address)
    begun = time.monotonic()
    job = None if overwrite else folder.job()
    skipped = job.manifest.counts.skipped if job else None
    here = workers.start is None
    workload = Workload.of(request, resources if here else Resources("cpu", workers=resources.workers), skipped)
    if here or resources.memory_gb is not None:
        images_for(workload, workers.each[0])  # refuses before anything is written
    layout = workload.unit_layout
    if _begin(folder, workload, joins, overwrite):
        return folder.path
    try:
        if workers.start is None:
            Worker(workload, folder, scope, resources, progress).run(time.monotonic() - begun)
        else:
            del workload  # the workers load their own
            workers.start(Task(request, str(folder.path.resolve()), scope), layout, progress)
    except RequestError:
        folder.abandon()  # the request, mended, is another run: nothing of this one would be of use to it
        raise
    return folder.path


def _begin(folder: RunFolder, workload: Workload, joins: bool, overwrite: bool) -> bool:
    """Begin or join the run; True if it is complete, and all that it wrote is there."""
    path = folder.work / SEEN
    memory = Memory() if overwrite else Memory.read(path)
    job = workload.job(memory).to_json()
    if folder.begin(job, joins, overwrite, memory.changed):
        if not (gone := lost(folder)):
            return True
        if set(gone) <= set(DRAWN):
            redraw_lost(folder)
            return True
        reopen(folder, job, gone)
    if memory.grew:
        folder.write_table(path, memory.table())
    return False
