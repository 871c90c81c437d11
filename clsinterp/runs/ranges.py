"""What the numbers of a request may be: each has a range, so that none fails, waits for ever or fills a disk later on."""

from __future__ import annotations

import math
from typing import Any

from clsinterp.errors import RequestError

# Name of an argument -> smallest and largest value, both allowed.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (2, 65536),
    "train_per_class": (1, 10**9),
    "test_per_class": (1, 10**9),
    "limit": (1, 10**9),
    "swaps": (1, 10000),
    "seed": (0, 2**32 - 1),
    "image_size": (1, 8192),
    "memory_gb": (1e-9, 10**6),
    "sharers": (1, 4096),
    "workers": (0, 256),
    "threads": (1, 4096),
    "jobs": (1, 1024),
    "wait": (0, 525600),  # minutes; a year
}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def refuse_outside(**given: Any) -> None:
    """Refuse numbers outside of `RANGES`; None, which leaves a number to the package, passes.

    Raises:
        RequestError: with the name, what was given and the range.
    """
    for name, value in given.items():
        low, high = RANGES[name]
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise RequestError(f"{name}={value} was given; at least {low:,.10g} and at most {high:,.10g} is expected.")
