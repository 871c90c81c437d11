"""Engines: who starts the workers of a run. What a worker does is `clsinterp.runs.worker`, whoever starts it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from clsinterp.errors import RequestError
from clsinterp.models.placement import worker_devices
from clsinterp.runs.engines.task import Task
from clsinterp.runs.ranges import refuse_outside
from clsinterp.runs.request import Progress, Resources
from clsinterp.runs.units import Layout

Start = Callable[[Task, Layout, Progress], None]


@dataclass(frozen=True)
class Engine:
    """Workers to be.

    Attributes:
        each: what each worker computes with.
        start: starts them and returns when they are done; None means this process is the one worker.
    """

    each: list[Resources]
    start: Start | None


def engine_for(name: str, resources: Resources, jobs: int | None, address: str | None) -> Engine:
    """The engine of that name with its workers worked out.

    Args:
        name: ``local``, ``processes`` or ``ray``.
        resources: asked for, of all workers together.
        jobs: how many workers.
        address: of a Ray cluster.

    Raises:
        RequestError: an option that does not go with the engine, Ray missing or its cluster not found.
    """
    if name not in ENGINES:
        raise RequestError(f"engine={name!r} was given; one of {', '.join(ENGINES)} is expected.")
    if resources.server is not None and name != "local":
        raise RequestError(
            f"a server was given with engine={name!r}; the server does the work, so leave the engine out."
        )
    refuse_outside(jobs=jobs)
    if jobs is not None and name == "local":
        raise RequestError("jobs= was given with engine='local', which is one process; use engine='processes'.")
    if address is not None and name != "ray":
        raise RequestError(f"address= was given with engine={name!r}; it goes with engine='ray'.")
    return ENGINES[name](resources, jobs, address)


def _local(resources: Resources, jobs: int | None, address: str | None) -> Engine:
    if resources.server is not None or resources.device_map is not None or len(worker_devices(resources.device)) == 1:
        return Engine([resources], None)
    return _processes(resources, jobs, address)


def _processes(resources: Resources, jobs: int | None, address: str | None) -> Engine:
    from clsinterp.runs.engines import processes

    each = shared_out(resources, jobs, worker_devices(resources.device), n_cores())
    return Engine(each, partial(processes.start, each=each))


def _ray(resources: Resources, jobs: int | None, address: str | None) -> Engine:
    from clsinterp.runs.engines import actors

    each, options = actors.connect(resources, jobs, address)
    return Engine(each, partial(actors.start, each=each, options=options))


ENGINES: dict[str, Callable[[Resources, int | None, str | None], Engine]] = {
    "local": _local,
    "processes": _processes,
    "ray": _ray,
}


def shared_out(resources: Resources, jobs: int | None, devices: list[str], cores: int) -> list[Resources]:
    """What each of `jobs` worker processes on one machine gets: devices in turn, equal shares of cores and memory.

    The default is a worker per device where there are several, else one for every four cores, but two at least.

    Example:
        >>> [(r.device, r.threads, r.sharers) for r in shared_out(Resources(), None, ["cuda:0", "cuda:1"], 8)]
        [('cuda:0', 4, 1), ('cuda:1', 4, 1)]
        >>> [(r.device, r.threads, r.sharers) for r in shared_out(Resources(), 3, ["cpu"], 8)]
        [('cpu', 2, 3), ('cpu', 2, 3), ('cpu', 2, 3)]
    """
    n = jobs or (len(devices) if len(devices) > 1 else max(2, cores // 4))
    threads = resources.threads or max(1, cores // n)
    sharers = -(-n // len(devices))
    return [replace(resources, device=devices[k % len(devices)], threads=threads, sharers=sharers) for k in range(n)]


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
