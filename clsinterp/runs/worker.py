"""A worker: does what is missing in a run folder, beside any number of others.

Every engine, every shard and every resumed run is this loop; they differ in who starts it and in its `Scope` only.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from clsinterp.data.batches import default_workers, stream
from clsinterp.data.content import Memory
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError, RunError, TooEarly
from clsinterp.runs.assemble import assemble, named
from clsinterp.runs.belongings import SEEN
from clsinterp.runs.folder import IN_USE, RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.parts import REMEDY
from clsinterp.runs.records import Record
from clsinterp.runs.request import Progress, Resources, Scope
from clsinterp.runs.solve import POLL, measurement, readers, solve_all
from clsinterp.runs.test_pass import RankRows
from clsinterp.runs.train_pass import TrainSums
from clsinterp.runs.units import Unit
from clsinterp.runs.workload import Workload
from clsinterp.shapes import misfit
from clsinterp.sweeps.batching import images_at_once
from clsinterp.sweeps.variants import MOST

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What a stage makes of units of batches."""

    def add(self, b: int, pixels: Tensor) -> None:
        """Take batch number `b`."""

    def finish(self, unit: Unit) -> bool:
        """End the unit, whose batches were all taken. Whether what is finished should be written now."""

    def save(self, folder: RunFolder) -> None:
        """Write what is finished."""


class Worker:
    """One process's work on a run.

    Args:
        workload: loaded.
        folder: begun.
        scope: how much of the run to do.
        resources: what to do it with.
        progress: called with (stage, images done, images in all).
        turn: (k, n) starts at the k-th n-th of the units, so that n workers on one folder rarely want the same.
    """

    def __init__(
        self,
        workload: Workload,
        folder: RunFolder,
        scope: Scope,
        resources: Resources,
        progress: Progress = lambda stage, done, total: None,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self.workload, self.folder, self.scope, self.resources = workload, folder, scope, resources
        self.progress, self.turn = progress, turn
        self.layout = workload.unit_layout

    def run(self, load_seconds: float = 0.0) -> None:
        """Do it. The run is complete afterwards, unless `scope` is a part and other parts are missing.

        Raises:
            TooEarly: a shard's test part needs train parts of others that are not there.
            RequestError: the run was begun on another kind of device.
            RunError: NaN, a full disk.
        """
        folder, layout, shard = self.folder, self.layout, self.scope.shard
        with self._until_complete():
            if not folder.locks.share(IN_USE):
                raise RequestError(f"{folder.path} is being replaced by another run; choose another out=.")
            job, at_once = self._agree()
            record = Record(folder, self.workload.model)
            record.seconds["load"] = load_seconds
            if not (folder.path / "probes.safetensors").exists():
                self._stage("train", self.workload.train, lambda: TrainSums(self.workload), record)
                if self.scope.stage == "train":
                    return
                self._await_train()
                with record.timed("solve"):
                    solve_all(folder, job)
            if self.scope.stage == "train":
                return
            read = readers(self.workload, folder)
            also = measurement(self.workload, folder, read)
            self._stage("test", self.workload.test, lambda: RankRows(self.workload, read, at_once, also), record)
            if not folder.missing(layout, layout.units("test")):
                self._refuse_changed(job)
                assemble(folder, job)
            elif shard is not None:
                logger.info("shard %s is done.", shard)

    def _refuse_changed(self, job: Job) -> None:
        """Refuse to sum up what was measured on images that were overwritten meanwhile: it would be of neither set."""
        memory = Memory.read(self.folder.work / SEEN)
        for split, images in (("train", self.workload.train), ("test", self.workload.test)):
            if images.fingerprint(memory) != job.identity.fingerprint[split]:
                some = f" ({', '.join(memory.changed[:3])}{', ..' if len(memory.changed) > 3 else ''})"
                raise RunError(
                    f"{split} images{some if memory.changed else ''} changed while the run went on; begin again with "
                    "overwrite=True."
                )

    @property
    def _device(self) -> torch.device:
        return self.workload.model.device

    @contextmanager
    def _until_complete(self) -> Iterator[None]:
        """Let another process complete the run, and take its parts away, at any moment.

        Raises:
            RunError: the folder is gone, but nobody completed the run.
        """
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, RunError) as error:
            if self.folder.is_done():
                return
            if isinstance(error, RunError):
                raise
            raise RunError(f"{self.folder.path}, or parts of the run in it, vanished; begin again.") from error
        finally:
            self.folder.locks.close()

    def _agree(self) -> tuple[Job, int]:
        """What the first worker on the folder settled for all: the job, how many images ride at once, and the kind of device.

        Fused and blocked kernels may round differently for other sizes of a batch, so it is not left to each worker's
        free memory. A ``memory_gb`` given to this worker can only lower it.
        """
        job = self.folder.job()
        if job is None:
            raise FileNotFoundError(self.folder.work)
        mine = min(images_for(self.workload, self.resources), self.workload.request.batch_size)
        plan = self.folder.write_once("plan.json", {"images_at_once": mine, "device": self._device.type})
        if wrong := misfit(plan, {"images_at_once": int, "device": str}, "the plan") or (
            plan["images_at_once"] < 1 and "no image rides at once"
        ):
            raise RunError(f"{self.folder.work / 'plan.json'} is damaged ({wrong}). {REMEDY}")
        if plan["device"] != self._device.type:
            raise RequestError(
                f"{self.folder.path} was begun on {plan['device']}, and {self._device.type} rounds differently; "
                f"give device={plan['device']!r}, or choose another out=."
            )
        lower = self.resources.memory_gb is not None
        return job, min(plan["images_at_once"], mine) if lower else plan["images_at_once"]

    def _stage(
        self,
        stage: str,
        split: Split,
        start: Callable[[], Part],
        record: Record,
    ) -> None:
        """Compute what is missing of `stage` in this worker's scope; waits for units that others have claimed."""
        folder, layout, resources = self.folder, self.layout, self.resources
        units = layout.units(stage, self.scope.shard)
        n, k = layout.n_images(units), self.turn[0] * len(units) // self.turn[1]
        part: Part | None = None
        while missing := folder.missing(layout, [*units[k:], *units[:k]]):
            done = n - layout.n_images(missing)
            self.progress(stage, done, n)
            workers = resources.workers
            if workers is None:
                workers = default_workers(layout.n_images(missing), self.turn[1])
            processor, size = self.workload.model.image_processor, layout.batch_size
            claimed: deque[Unit] = deque()
            finished: list[Unit] = []
            begun = time.monotonic()
            try:
                ahead = ((u, range(u.start, u.stop)) for u in _noted(folder.claimed(layout, missing), claimed))
                for unit, b, pixels in stream(split, processor, size, ahead, workers):
                    part = part or start()
                    part.add(b, pixels)
                    done += len(pixels)
                    self.progress(stage, min(done, n), n)
                    if b == unit.stop - 1:
                        finished.append(claimed.popleft())
                        if part.finish(unit):
                            begun = self._written(stage, part, finished, record, begun)
                if part and finished:
                    self._written(stage, part, finished, record, begun)
            finally:
                for unit in (*finished, *claimed):
                    folder.release(layout, unit)
                record.write(now=True)
            if folder.missing(layout, units):
                time.sleep(POLL)
        self.progress(stage, n, n)

    def _written(self, stage: str, part: Part, units: list[Unit], record: Record, begun: float) -> float:
        """Write what `part` finished, and give up the claims on those `units`; the time at which that was done."""
        part.save(self.folder)
        while units:
            self.folder.release(self.layout, units.pop(0))
        now = time.monotonic()
        record.seconds[stage] += now - begun
        record.write()
        return now

    def _await_train(self) -> None:
        """Wait for the train parts of other shards as long as was asked."""
        folder, layout, shard = self.folder, self.layout, self.scope.shard
        until = time.monotonic() + 60 * self.scope.wait
        while missing := folder.missing(layout, layout.units("train")):
            if (folder.path / "probes.safetensors").exists():
                return
            if shard is None or time.monotonic() > until:
                whose = named(layout, missing, shard.of if shard else None)
                raise TooEarly(
                    f"shard {shard} has done its train part; its test part needs the train parts of {whose}. Give the same "
                    "command again when they are done, or wait=MINUTES to wait here."
                )
            time.sleep(POLL)


def images_for(workload: Workload, resources: Resources) -> int:
    """How many images ride at once with `resources`.

    Raises:
        RequestError: not even one fits.
    """
    height, width = workload.model.pixels(workload.test.image(0)).shape[-2:]
    copies = max(len(workload.layers), MOST if workload.request.also else 0)
    return images_at_once(workload.model, height, width, copies, resources.memory_gb, resources.sharers)


def _noted(units: Iterator[Unit], claimed: deque[Unit]) -> Iterator[Unit]:
    for unit in units:
        claimed.append(unit)
        yield unit
