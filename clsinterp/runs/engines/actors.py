"""Ray actors, one per GPU or per few cores, on one machine or a cluster whose machines share the run folder's disk.

Ray restarts an actor that dies and calls its work again, which then does what is missing. Ray is imported here only.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from clsinterp.errors import ClsinterpError, RequestError, RunError
from clsinterp.runs.engines.task import LOOK, RETRIES, Task, report
from clsinterp.runs.request import Progress, Resources
from clsinterp.runs.units import Layout


def connect(resources: Resources, jobs: int | None, address: str | None) -> tuple[list[Resources], dict[str, float]]:
    """Join the cluster at `address`, or start one on this machine; what each actor gets, and asks of Ray.

    Raises:
        RequestError: Ray is not installed, there is no cluster at `address`, or it is too small for `jobs`.
    """
    try:
        import ray
    except ImportError as error:
        raise RequestError("engine='ray' needs the package ray: pip install 'clsinterp[ray]'.") from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        new: dict[str, Any] = {"include_dashboard": False} if address is None else {}
        try:
            with _handlers_kept():
                ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **new)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"address={address!r} was given, but no Ray cluster can be joined there "
                f"({str(error).splitlines()[0]}); start one with: ray start --head."
            ) from error
    return share_out(resources, jobs, ray.cluster_resources())


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep our answer to SIGTERM, in the place of which Ray puts its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def share_out(
    resources: Resources, jobs: int | None, cluster: dict[str, float]
) -> tuple[list[Resources], dict[str, float]]:
    """What each of `jobs` actors computes with, and what it asks of Ray.

    Raises:
        RequestError: more actors than the cluster can hold.

    Example:
        >>> each, options = share_out(Resources(), None, {"CPU": 16.0, "GPU": 4.0})
        >>> len(each), each[0].device, each[0].threads, options
        (4, 'cuda', 4, {'num_cpus': 4, 'num_gpus': 1})
        >>> each, options = share_out(Resources(), 2, {"CPU": 16.0})
        >>> len(each), each[0].device, each[0].threads, options
        (2, 'auto', 8, {'num_cpus': 8})
    """
    cpus, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    on_gpus = gpus > 0 and resources.device in ("auto", "cuda")
    n = jobs or (gpus if on_gpus else max(1, cpus // 4))
    most = gpus if on_gpus else cpus
    threads = resources.threads or max(1, cpus // n)
    if n > most or n * threads > cpus:
        raise RequestError(
            f"{n} workers of {threads} threads were asked for, but the Ray cluster has {cpus} cores and {gpus} GPUs; "
            "give fewer jobs=."
        )
    options: dict[str, float] = {"num_cpus": threads, **({"num_gpus": 1} if on_gpus else {})}
    one = replace(resources, device="cuda" if on_gpus else resources.device, threads=threads, sharers=1)
    return [one if on_gpus else replace(one, sharers=n)] * n, options


def start(task: Task, layout: Layout, progress: Progress, *, each: list[Resources], options: dict[str, float]) -> None:
    """Run an actor for each of `each` until all are done.

    Raises:
        ClsinterpError: what a worker raised; the others are ended.
        RunError: a worker died more often than it is started again.
    """
    import ray

    from clsinterp.runs.engines.worker_process import WorkerProcess

    actor: Any = ray.remote(WorkerProcess).options(max_restarts=RETRIES, max_task_retries=RETRIES, **options)
    actors = [actor.remote(task, resources, (k, len(each))) for k, resources in enumerate(each)]
    pending = [a.work.remote() for a in actors]
    try:
        while pending:
            ready, pending = ray.wait(pending, timeout=LOOK)
            report(task, layout, progress)
            ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClsinterpError):
            raise error.cause from None
        raise RunError(f"a Ray worker failed: {error}") from error
    except ray.exceptions.RayActorError as error:
        raise RunError(
            f"a Ray worker died and could not be started again ({str(error).splitlines()[0]}). If a machine ran out of "
            "memory, give fewer jobs= or a smaller memory_gb=; resume=True goes on."
        ) from error
    finally:
        for a in actors:
            ray.kill(a)
