"""From the parts in a run folder to its tables and figure. Needs neither the model nor the data."""

import logging
import time
from dataclasses import replace

import pyarrow as pa
import torch

from clsinterp.errors import RequestError, TooEarly
from clsinterp.runs import records
from clsinterp.runs.folder import TABLES, RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.parts import load_rows
from clsinterp.runs.repair import draw, hashes, redraw_lost
from clsinterp.runs.report import Report
from clsinterp.runs.results import curves_table
from clsinterp.runs.solve import POLL, alphas, solve_all
from clsinterp.runs.units import Layout, Shard, Unit
from clsinterp.runs.verdicts import verdicts

logger = logging.getLogger(__name__)


def merge(folder: RunFolder) -> None:
    """Assemble a run whose parts are all there; solve the probes too if that is what is left to do.

    Raises:
        RequestError: no run folder.
        TooEarly: parts are missing; the message names them.
    """
    job = folder.job()
    if job is None:
        if folder.is_done():
            redraw_lost(folder)
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
            solve_all(folder, job)
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
    layout = job.layout
    parts = [folder.work / layout.files(unit)[0] for unit in layout.units("test")]
    images = pa.concat_tables([load_rows(folder, p) for p in parts]).combine_chunks()
    found = verdicts(images, job.manifest.labels.classes)
    facts = replace(job.facts, floors=found.floors)
    curves = curves_table(images, facts)
    folder.write_table(folder.path / "images.parquet", images)
    draw(folder, facts, curves)
    worked = records.summary(folder)
    manifest = replace(job.manifest, device=worked.device or job.manifest.device)
    if worked.traffic:
        manifest = replace(manifest, remote={**(manifest.remote or {}), **worked.traffic})
    penalties, edges = alphas(folder)
    at_edge = [layer for layer, edge in zip(manifest.layers, edges, strict=True) if edge]
    if at_edge:
        logger.warning(
            "the probes of layers %s chose a penalty at an end of the grid; wider alphas= may read more.",
            ", ".join(map(str, at_edge)),
        )
    report = Report(
        facts,
        found.onsets,
        job.identity,
        manifest,
        **_donor_rates(images),
        computed_on=worked.computed_on,
        seconds={**worked.seconds, "tables and figure": round(time.monotonic() - start, 3)},
        alpha=dict(zip(manifest.layers, penalties, strict=True)),
        alpha_at_edge=at_edge,
        files=hashes(folder.path),
    )
    folder.write_json(folder.path / "run.json", report.to_json())


def _donor_rates(images: pa.Table) -> dict[str, float | None]:
    """How often a donor has the host's label, and how often an image is its own donor."""
    if images["donor"].null_count:
        return {"collision_rate": None, "own_cls_rate": None}
    index, label, donor = (torch.from_numpy(images[c].to_numpy().copy()).long() for c in ("index", "label", "donor"))
    by_index = torch.empty_like(label)
    by_index[index] = label
    same, own = by_index[donor] == label, donor == index
    return {"collision_rate": float(same.double().mean()), "own_cls_rate": float(own.double().mean())}


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
