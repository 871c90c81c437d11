"""Whether there are data under a name, found out in seconds: the hub's own clients try for half a minute before they say no."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from clsinterp.data.named import NAMED
from clsinterp.errors import RequestError

SECONDS = 2.0
LONGEST = 300  # characters of a name that are compared with others


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


def refuse_missing(data: str) -> None:
    """Refuse a name under which there is nothing here, nor on the hub as far as that can be told, with what is called alike.

    Cheap: a command asks before it imports what reads data.

    Raises:
        RequestError: as said.
    """
    from huggingface_hub import constants

    here = os.path.expanduser(data)  # pathlib raises for a user who is not there, and for a name no file can have
    if data == "zoo" or os.path.isdir(here) or os.path.isfile(here):
        return
    if data.startswith((".", "/", "~")) or data.count("/") > 1:
        raise RequestError(f"there is no file or folder {data}.{near(data)}")
    if constants.HF_HUB_OFFLINE or reachable():  # told to be offline, its clients look into their caches at once
        return
    if data in NAMED:
        raise RequestError(f"{data} lies on the hub, which cannot be reached; give a folder of class folders, or zoo.")
    raise RequestError(
        f"there is no folder or file {data}, and the hub cannot be reached to look for a data set of that name.{near(data)}"
    )


def near(data: str) -> str:
    """A sentence that names what is called like `data`, beside it or known to this package; empty if nothing is."""
    path = Path(os.path.expanduser(data))
    try:
        beside = [p.name for p in path.parent.iterdir() if p.is_dir() or p.suffix in (".parquet", ".tar")]
    except (OSError, ValueError):
        beside = []
    known = [*beside, *NAMED, "zoo"] if path.parent == Path() else beside
    return alike(path.name, {name: str(path.with_name(name)) for name in known})


def alike(typed: str, known: Mapping[str, str]) -> str:
    """A sentence that names what is called like `typed`; empty if nothing is.

    Args:
        typed: a name.
        known: name -> how it is given.
    """
    close = dict.fromkeys(known[name] for name in difflib.get_close_matches(typed[:LONGEST], known, n=3))
    return f" Near: {', '.join(close)}." if close else ""
