"""From the parts in a run folder to its tables and figure. Needs neither the model nor the data."""

import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clsinterp import interventions
from clsinterp.errors import RequestError, TooEarly
from clsinterp.figures.files import to_html
from clsinterp.figures.note import study_figures
from clsinterp.runs import records
from clsinterp.runs.folder import TABLES, RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.onset import onsets
from clsinterp.runs.report import Report
from clsinterp.runs.results import curves_table
from clsinterp.runs.solve import POLL, alphas, solve_all
from clsinterp.runs.units import Layout, Shard, Unit


def merge(folder: RunFolder) -> None:
    """Assemble a run whose parts are all there; solve the probes too if that is what is left to do.

    Raises:
        RequestError: no run folder.
        TooEarly: parts are missing; the message names them.
    """
    job = folder.job()
    if job is None:
        if folder.is_done():
            return
        raise RequestError(f"{folder.path} is not a run folder; the folder that a run was written to is expected.")
    layout = job.layout
    for stage in ("train", "test"):
        missing = folder.missing(layout, layout.units(stage))
        if missing and not (stage == "train" and not folder.missing(layout, layout.units("solve"))):
            raise TooEarly(
                f"{folder.path} is not complete: of the {stage} pass {named(layout, missing)} are missing. "
                "Run the shards that compute them, or clsinterp run with the same arguments and --resume."
            )
        if stage == "train":
            solve_all(folder, layout, job.manifest)
    assemble(folder, job)


def assemble(folder: RunFolder, job: Job) -> None:
    """Write the tables and the figure, then ``run.json``; returns when the run is complete, whoever completed it."""
    while not folder.is_done():
        with folder.alone(TABLES) as free:
            if free and not folder.is_done():
                _write_results(folder, job)
                folder.finish()
        if not folder.is_done():
            time.sleep(POLL)


def _write_results(folder: RunFolder, job: Job) -> None:
    start = time.monotonic()
    layout, facts = job.layout, job.facts
    parts = [folder.work / layout.files(unit)[0] for unit in layout.units("test")]
    images = pa.concat_tables([pq.read_table(p) for p in parts]).combine_chunks()
    curves = curves_table(images, facts)
    folder.write_table(folder.path / "images.parquet", images)
    folder.write_table(folder.path / "curves.parquet", curves)
    page = to_html(study_figures([(facts, curves)]))
    folder.write(folder.path / "figure.html", lambda p: p.write_text(page))
    label, donor = (torch.from_numpy(images[c].to_numpy().copy()).long() for c in ("label", "donor"))
    found = onsets(images, facts.n_classes)
    worked = records.summary(folder)
    manifest = replace(job.manifest, device=worked.device)
    if worked.traffic:
        manifest = replace(manifest, remote={**(manifest.remote or {}), **worked.traffic})
    report = Report(
        facts,
        found,
        job.identity,
        manifest,
        collision_rate=interventions.collision_rate(label, donor),
        own_cls_rate=float((donor == torch.arange(len(donor))).double().mean()),
        computed_on=worked.computed_on,
        seconds={**worked.seconds, "tables and figure": round(time.monotonic() - start, 3)},
        alpha=dict(zip(manifest.layers, alphas(folder), strict=True)),
    )
    folder.write_json(folder.path / "run.json", report.to_json())


def named(layout: Layout, missing: list[Unit], of: int | None = None) -> str:
    """What `missing` is to a reader: the shards that are to compute it, or batches.

    Example:
        >>> layout = Layout(60, 20, 10, (), 1, 1)
        >>> named(layout, layout.units("train")[1:3])
        'batches 1-2 of 6'
        >>> named(layout, layout.units("train")[1:3], of=3)
        'shards 1-2 of 3'
    """
    units = layout.units(missing[0].stage)
    if of is None:
        gone = sorted(b for u in missing for b in range(u.start, u.stop))
        return f"batches {spans(gone)} of {units[-1].stop}"
    gone = [k for k in range(1, of + 1) if not set(Shard(k, of).part(units)).isdisjoint(missing)]
    return f"shards {spans(gone)} of {of}"


def spans(numbers: list[int]) -> str:
    """Sorted numbers, runs shortened.

    Example:
        >>> spans([1, 2, 3, 7])
        '1-3, 7'
    """
    runs: list[list[int]] = []
    for i in numbers:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)
