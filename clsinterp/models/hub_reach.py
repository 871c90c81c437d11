"""A hub that can't be reached is not waited for: its own client tries for half a minute before it says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clsinterp.data.hub import reachable


@contextmanager
def cache_alone_if_unreachable(where: str) -> Iterator[None]:
    """Inside, hub ids are looked for in the cache alone if the hub can't be reached; nothing is asked for a folder."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or Path(where).is_dir() or reachable():
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False
