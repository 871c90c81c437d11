"""What each process that worked on a run was, and how long its parts took: one small file per process."""

import math
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from clsinterp import files
from clsinterp.errors import RunError
from clsinterp.runs.folder import RunFolder
from clsinterp.vision_model import VisionModel

WRITE_EVERY = 5.0  # seconds
KIND = {"device": str, "hardware": str, "threads": int, "torch": str, "seconds": dict[str, float]}
SAME = ("device", "hardware", "threads", "torch")  # what bits could depend on


class Record:
    """This process's file in ``.work/workers``.

    Args:
        folder: the run.
        model: what runs.
    """

    def __init__(self, folder: RunFolder, model: VisionModel) -> None:
        self.folder = folder
        self.path = (
            folder.work / "workers" / f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}.json"
        )  # a process may try twice
        with files.writing(self.path.parent):
            self.path.parent.mkdir(exist_ok=True)
        device, self.server = model.device, model.server
        if self.server is not None:
            hardware = f"server {self.server.url}"
        elif device.type == "cuda":
            hardware = torch.cuda.get_device_name(device)
        else:
            hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        self.facts: dict[str, Any] = {
            "host": platform.node(),
            "pid": os.getpid(),
            "device": device.type if self.server is None else model.server_facts["device"],
            "hardware": hardware,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        self.seconds: dict[str, float] = defaultdict(float)
        self._written = -math.inf
        self.write()

    def write(self, now: bool = False) -> None:
        """Write what is known so far, `now` or if the last time was a while ago."""
        if not now and time.monotonic() - self._written < WRITE_EVERY:
            return
        self._written = time.monotonic()
        seconds = {stage: round(value, 3) for stage, value in self.seconds.items()}
        traffic = {} if self.server is None else {"traffic": asdict(self.server.traffic)}
        self.folder.write_json(self.path, {**self.facts, "seconds": seconds, **traffic})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to `stage`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - start


def read(folder: RunFolder) -> list[dict[str, Any]]:
    """The records of all processes that worked on an unfinished run."""
    return [_read(path) for path in sorted((folder.work / "workers").glob("*.json"))]


def _read(path: Path) -> dict[str, Any]:
    with files.reading(path, "Delete that file and go on: it only says how long a process worked.", RunError):
        return files.read_json(path, KIND)


@dataclass(frozen=True)
class Summary:
    """What all processes of a run were and did.

    Attributes:
        device: of the first; None where nobody's record is left.
        computed_on: what kinds of process there were, and how many of each.
        seconds: per stage, summed over processes.
        traffic: what all of them exchanged with a server, attempts that were broken off included.
    """

    device: str | None
    computed_on: list[dict[str, Any]]
    seconds: dict[str, float]
    traffic: dict[str, int]


def summary(folder: RunFolder) -> Summary:
    """For ``run.json``."""
    records = read(folder)
    seconds: dict[str, float] = defaultdict(float)
    kinds: dict[tuple, int] = defaultdict(int)
    for record in records:
        kinds[tuple(record[key] for key in SAME)] += 1
        for stage, value in record["seconds"].items():
            seconds[stage] = round(seconds[stage] + value, 3)
    computed_on = [dict(zip(SAME, kind, strict=True)) | {"processes": n} for kind, n in sorted(kinds.items())]
    traffic: dict[str, int] = defaultdict(int)
    for record in records:
        for name, value in record.get("traffic", {}).items():  # a dictionary of counts, if a server was asked
            traffic[name] += value
    return Summary(records[0]["device"] if records else None, computed_on, dict(seconds), dict(traffic))
