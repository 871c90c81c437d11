"""From the summed statistics to probes and heads: one unit per regression, then one file, then the test pass's readers.

Nothing here needs the model but `readers`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from clsinterp.models.placement import exact
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import ALPHAS, Ridge, RidgeStats, solve
from clsinterp.runs import extras
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.parts import load_tensors, save_tensors
from clsinterp.runs.train_pass import total
from clsinterp.runs.units import Layout, Unit
from clsinterp.runs.workload import Workload
from clsinterp.sweeps.readers import Readers

PROBES = "probes.safetensors"
POLL = 0.2  # seconds between looks at what other processes do


def solve_unit(folder: RunFolder, layout: Layout, unit: Unit, statistics: Path, job: Job) -> None:
    """Fit one regression (or take the mean of the read-out) and write it.

    Args:
        folder, layout: the run.
        unit: of the stage ``solve``.
        statistics: the file of `clsinterp.runs.train_pass.total`.
        job: what the run works with.
    """
    name = layout.solves[unit.index]
    if name == "rest":
        with safe_open(statistics, "pt") as file:
            mean = file.get_tensor("readout.sum") / file.get_tensor("cls.counts").sum()
        save_tensors(folder, folder.work / layout.files(unit)[0], {"mean": mean})
        return
    if extra := extras.solved(name, job.manifest.layers):
        make, place = extra
        assert make.fit is not None  # else it had no unit
        with safe_open(statistics, "pt") as file, one_thread():
            made = make.fit(_statistics(file, "cls", slice(place, place + 1)), job.identity.request.alphas or ALPHAS)
        save_tensors(folder, folder.work / layout.files(unit)[0], made)
        return
    what, part = ("cls", slice(unit.index, unit.index + 1)) if name.startswith("probe") else ("head", slice(None))
    with safe_open(statistics, "pt") as file:
        stats = _statistics(file, what, part)
    with one_thread():
        # The CLS token is the first part of the read-out.
        stats = stats.part(slice(0, job.manifest.d_model)) if name == "cls_head" else stats
        ridge = solve(stats, job.identity.request.alphas or ALPHAS)
    tensors = {key: getattr(ridge, key).contiguous() for key in ("weight", "bias", "alpha", "cv_error")}
    save_tensors(folder, folder.work / layout.files(unit)[0], tensors)


def _statistics(file: Any, what: str, part: slice) -> RidgeStats:
    gram, class_sums = (file.get_slice(f"{what}.{key}")[:, part].clone() for key in ("gram", "class_sums"))
    return RidgeStats(gram, class_sums, file.get_tensor(f"{what}.counts"))


def write_probes(folder: RunFolder, layout: Layout, job: Job) -> None:
    """Put the fitted regressions into ``probes.safetensors``, unless it is there."""
    if (folder.path / PROBES).exists():
        return
    fitted = {
        layout.solves[unit.index]: load_tensors(folder, folder.work / layout.files(unit)[0])
        for unit in layout.units("solve")
    }
    probes = [value for name, value in fitted.items() if name.startswith("probe")]
    tensors = {f"probe.{key}": torch.cat([p[key] for p in probes]) for key in ("weight", "bias", "alpha", "cv_error")}
    tensors["probe.layers"] = torch.tensor(job.manifest.layers)
    for name in ("weight", "bias", "alpha"):
        if "head" in fitted:
            tensors[f"head.{name}"] = fitted["head"][name]
        if "cls_head" in fitted:
            tensors[f"cls_head.{name}"] = fitted["cls_head"][name][0].clone()
    if "rest" in fitted:
        tensors["readout.mean"] = fitted["rest"]["mean"]
    tensors |= extras.stacked(fitted, job.identity.request.also, job.manifest.layers)
    classes = {"classes": "\n".join(job.manifest.class_names)}
    save_tensors(folder, folder.path / PROBES, tensors, classes)


def solve_all(folder: RunFolder, job: Job) -> None:
    """Fit what is not fitted yet, together with whoever else is at it; ends when ``probes.safetensors`` is there.

    Raises:
        LookupError: units of the train pass are missing.
    """
    layout = job.layout
    units = layout.units("solve")
    statistics: Path | None = None
    while missing := folder.missing(layout, units):
        statistics = statistics or total(folder, layout)  # once: it looks at the whole file
        for unit in folder.claimed(layout, missing) if statistics else ():
            solve_unit(folder, layout, unit, statistics, job)  # type: ignore[arg-type]
            folder.release(layout, unit)
        if folder.missing(layout, units):
            time.sleep(POLL)
    write_probes(folder, layout, job)


def readers(workload: Workload, folder: RunFolder) -> Readers:
    """What reads the rows of the test pass."""
    tensors = load_tensors(folder, folder.path / PROBES)
    where = exact(workload.model.device)
    ridge = Ridge(*(tensors[f"probe.{name}"] for name in ("weight", "bias", "alpha", "cv_error"))).to(where)
    if workload.match.how == "fit":
        weights, biases = tuple(tensors["head.weight"]), tuple(tensors["head.bias"])
        head = Head(weights, biases, workload.model.family.readouts, own=False).to(where)
    else:
        head = Head.of(workload.model.family, workload.model.heads)
    cls_head = None
    if workload.request.cls_only == "refit":
        cls_head = Head((tensors["cls_head.weight"],), (tensors["cls_head.bias"],), ("cls",), own=False).to(where)
    rest = tensors["readout.mean"].to(where) if workload.wants_rest else None
    return Readers(head, cls_head, rest, ridge, workload.layers, workload.request.final_norm)


def measurement(workload: Workload, folder: RunFolder, read: Readers) -> extras.Measurement:
    """What is measured beside the note in the test pass."""
    tensors = load_tensors(folder, folder.path / PROBES)
    return extras.Measurement.of(workload.model, read, workload.request.also, workload.layers, tensors)


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: LAPACK's results depend on the number of threads in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alphas(folder: RunFolder) -> tuple[list[float], list[bool]]:
    """The penalty of each probe, from ``probes.safetensors``, and whether it lies at an end of what was tried."""
    tensors = load_tensors(folder, folder.path / PROBES)
    ridge = Ridge(*(tensors[f"probe.{name}"] for name in ("weight", "bias", "alpha", "cv_error")))
    return ridge.alpha.tolist(), ridge.at_edge
