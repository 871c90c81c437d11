"""A worker in a process of its own: loads the model once and works on the run folder."""

import time
from pathlib import Path

import torch

from clsinterp.console import quiet_libraries
from clsinterp.data.content import Memory
from clsinterp.errors import RunError
from clsinterp.runs.belongings import SEEN
from clsinterp.runs.engines.task import Task
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.job import Job
from clsinterp.runs.request import Resources
from clsinterp.runs.worker import Worker
from clsinterp.runs.workload import Workload


class WorkerProcess:
    """One worker.

    Args:
        task: what to do.
        resources: what to do it with.
        turn: this worker's number, and how many there are.
    """

    def __init__(self, task: Task, resources: Resources, turn: tuple[int, int]) -> None:
        self.task, self.resources, self.turn = task, resources, turn
        self.workload: Workload | None = None

    def work(self) -> None:
        """Do what is missing in the run folder; a second call only does what is missing then.

        Raises:
            RunError: the folder is not there (on another machine: its disk is not shared).
            ClsinterpError: as `clsinterp.runs.worker.Worker.run`.
        """
        folder = RunFolder(Path(self.task.out))
        job = folder.job()
        if job is None:
            if folder.is_done():
                return
            raise RunError(
                f"there is no run in {folder.path} as this worker sees it; the run folder must lie on a disk that all "
                "machines share, under the same path."
            )
        begun = time.monotonic()
        workload = self._load(job)
        if folder.begin(workload.job(Memory.read(folder.work / SEEN)).to_json(), resume=True, overwrite=False):
            return
        worker = Worker(workload, folder, self.task.scope, self.resources, turn=self.turn)
        worker.run(time.monotonic() - begun)

    def _load(self, job: Job) -> Workload:
        if self.resources.threads is not None:
            torch.set_num_threads(self.resources.threads)
        if self.workload is None:
            quiet_libraries()
            self.workload = Workload.of(self.task.request, self.resources, job.manifest.counts.skipped)
        return self.workload
