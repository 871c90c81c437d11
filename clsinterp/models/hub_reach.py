"""Whether the hub can be asked at all, found out in two seconds: its own client tries for half a minute before it says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

SECONDS = 2.0


def reachable(endpoint: str) -> bool:
    """Whether something answers at `endpoint`, within `SECONDS`; True where a proxy stands between, which is not asked."""
    if getproxies():
        return True
    url, answered = urlsplit(endpoint), threading.Event()

    def knock() -> None:
        try:
            socket.create_connection(
                (url.hostname, url.port or (443 if url.scheme == "https" else 80)), SECONDS
            ).close()
            answered.set()
        except OSError:
            pass

    # A thread, since looking up a name takes no time limit; whether it ends is nobody's concern.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answered.is_set()


@contextmanager
def cache_alone_if_unreachable(where: str) -> Iterator[None]:
    """Inside, hub ids are looked for in the cache alone if the hub can't be reached; nothing is asked for a folder."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or Path(where).is_dir() or reachable(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False
