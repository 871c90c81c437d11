"""Whether the hub can be asked, found out in seconds: its own clients try for half a minute before they say so."""

from __future__ import annotations

import difflib
import threading
from pathlib import Path

from clsinterp.errors import RequestError

SECONDS = 2.5


def reachable(seconds: float = SECONDS) -> bool:
    """Whether the hub answers anything at all within `seconds`, through whatever proxy is set."""
    import httpx
    from huggingface_hub import constants

    answered = threading.Event()

    def knock() -> None:
        try:
            httpx.head(constants.ENDPOINT, timeout=seconds)
            answered.set()
        except (httpx.HTTPError, OSError):
            pass
        finally:
            ended.set()

    # A thread, since looking up a name takes no time limit; how it ends after that is nobody's concern.
    ended = threading.Event()
    threading.Thread(target=knock, daemon=True).start()
    ended.wait(seconds)
    return answered.is_set()


def refuse_unreachable(data: str) -> None:
    """Refuse a name that is no folder here where the hub can't be asked for it, with the names here that are near.

    Raises:
        RequestError: as said.
    """
    from huggingface_hub import constants

    if (
        not constants.HF_HUB_OFFLINE and not reachable()
    ):  # told to be offline, its clients look into their caches at once
        raise RequestError(
            f"there is no folder or file {data}, and the hub cannot be reached to look for a data set of that name.{near(data)}"
        )


def near(data: str) -> str:
    """A sentence that names what stands beside `data` and is called alike; empty if nothing is."""
    path = Path(data).expanduser()
    try:
        beside = [p.name for p in path.parent.iterdir() if p.is_dir() or p.suffix in (".parquet", ".tar")]
    except OSError:
        beside = []
    known = [*beside, "zoo"] if path.parent == Path() else beside
    close = difflib.get_close_matches(path.name, known, n=3)
    return f" Near: {', '.join(str(path.with_name(name)) for name in close)}." if close else ""
