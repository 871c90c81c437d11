"""Worker processes on this machine. One that dies is started again; if the parent dies, they end at once.

Parent and worker hold the two ends of a pipe, the worker's stdin. The kernel closes it when the parent is gone, however
that came about, and the worker, which reads it, ends. Everything else they have to say to each other is in the folder.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from clsinterp import errors
from clsinterp.runs.engines.task import LOOK, RETRIES, Task, report
from clsinterp.runs.request import Progress, Resources
from clsinterp.runs.units import Layout

logger = logging.getLogger(__name__)


def start(task: Task, layout: Layout, progress: Progress, *, each: list[Resources]) -> None:
    """Run a worker process for each of `each` until all are done.

    Raises:
        ClsinterpError: what a worker raised; the others are ended.
        RunError: a worker died more often than it is started again.
    """
    children = [_Child(task, resources, (k, len(each))) for k, resources in enumerate(each)]
    try:
        while [child for child in children if child.is_running()]:
            report(task, layout, progress)
            time.sleep(LOOK)
        report(task, layout, progress)
    finally:
        for child in children:
            child.end()


class _Child:
    def __init__(self, task: Task, resources: Resources, turn: tuple[int, int]) -> None:
        self.spec = json.dumps({"task": task.to_json(), "resources": asdict(resources), "turn": turn})
        self.threads, self.deaths = str(resources.threads or 1), 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        package = str(Path(errors.__file__).parents[1])
        path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
        process = subprocess.Popen(
            [sys.executable, "-m", "clsinterp.runs.engines.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": self.threads, "MKL_NUM_THREADS": self.threads},
            start_new_session=True,  # Ctrl-C goes to the parent alone, which then ends the workers
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already, which is_running sees
            process.stdin.write(self.spec + "\n")
            process.stdin.flush()
        return process

    def is_running(self) -> bool:
        status = self.process.poll()
        if status is None:
            return True
        if status == 0:
            return False
        assert self.process.stdout is not None
        if said := self.process.stdout.read():
            raise getattr(errors, json.loads(said)["kind"])(json.loads(said)["message"])
        self.deaths += 1
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if self.deaths > RETRIES:
            raise errors.RunError(
                f"a worker process died {self.deaths} times, last with {how}. If the machine ran out of memory, give fewer "
                "jobs= or a smaller memory_gb=; resume=True goes on."
            )
        logger.warning("a worker process died with %s; started again.", how)
        self.end()
        self.process = self._start()
        return True

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()


def main() -> None:
    """A worker process: its work is one JSON line on stdin; an error it raises goes to stdout as JSON."""
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    out, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print is not for the parent
    from clsinterp.runs.engines.worker_process import WorkerProcess

    logging.disable(logging.WARNING)  # the parent has said it already
    try:
        WorkerProcess(Task.of_json(spec["task"]), Resources(**spec["resources"]), tuple(spec["turn"])).work()
    except Exception as raised:
        error = errors.explained(raised)
        if not isinstance(error, errors.ClsinterpError):
            raise
        json.dump({"kind": type(error).__name__, "message": str(error)}, out)
        out.flush()
        os._exit(error.exit_status)
    os._exit(0)  # not through the interpreter's end: the other thread sits in a read


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
