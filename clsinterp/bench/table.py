"""Every row, by group."""

from collections.abc import Callable
from importlib import import_module

from clsinterp.bench.timing import Row
from clsinterp.errors import RequestError

# group -> module and function; imported when asked for.
GROUPS = {
    "published": ("published", "published_rows"),
    "fork": ("sweeps", "fork_rows"),
    "patching": ("lenses", "patching_rows"),
    "cost": ("costs", "cost_rows"),
    "forward": ("forwards", "forward_rows"),
    "probes": ("fits", "probe_rows"),
    "memory": ("inputs", "memory_rows"),
    "input": ("inputs", "input_rows"),
    "startup": ("startup", "startup_rows"),
    "gpu": ("gpu", "gpu_rows"),
}


def measure(groups: list[str], quick: bool, progress: Callable[[str], None] = lambda group: None) -> list[Row]:
    """The rows of `groups`, in order.

    Raises:
        RequestError: an unknown group.
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise RequestError(f"{', '.join(unknown)} was given; groups are {', '.join(GROUPS)}.")
    rows = []
    for group in groups:
        progress(group)
        module, function = GROUPS[group]
        rows += getattr(import_module(f"clsinterp.bench.{module}"), function)(quick)
    return rows
