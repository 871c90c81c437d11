"""Why a folder may not be used for a run, each reason in one sentence."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clsinterp.errors import RequestError, RunError
from clsinterp.runs import belongings

LONGEST = 255  # bytes of a name, on every usual disk


def refuse_impossible(path: Path) -> None:
    """Refuse what no folder can be, before anything is loaded.

    Raises:
        RequestError: a file, a link to nothing, a name that is too long.
        RunError: it is there and may not be looked into.
    """
    # A name of 300 characters is an error only when it is used; lexists says that there is no such file.
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise RequestError(f"no folder can be called {path.name[:40]}..: the name is too long; give a shorter out=.")
    try:
        there = os.path.lexists(path) and path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise RequestError(f"{path} is a link to nothing; choose another out=.") from error
        raise RunError(f"{path} cannot be used: {error.strerror}.") from error
    if there and not path.is_dir():
        raise RequestError(f"{path} is a file; a folder for the run is expected.")


def refuse_strangers(path: Path) -> None:
    """Refuse to replace what is not a run, or holds more than a run's files.

    Raises:
        RequestError: the message names what else is there.
    """
    others = belongings.strangers(path)
    some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    if not belongings.is_run(path):
        holds = f" (it holds {some})" if others else ""
        raise RequestError(
            f"{path} is not a run folder{holds}, so overwrite=True will not delete it; choose another out=."
        )
    if others:
        raise RequestError(
            f"{path} holds what no run wrote ({some}), so overwrite=True will not touch it; move that away, or choose "
            "another out=."
        )


def difference(then: dict[str, Any], now: dict[str, Any], changed: Sequence[str]) -> str | None:
    """What a run was asked, as far as it is not what is asked now, and what to do; None if it is the same.

    Args:
        then, now: identities, as JSON.
        changed: images that are known to have changed.
    """
    other = [k for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if not other:
        return None
    if other == ["fingerprint"] and isinstance(then.get("fingerprint"), dict):
        parts = [part for part in now["fingerprint"] if then["fingerprint"].get(part) != now["fingerprint"][part]]
        words = " and ".join(f"other {part} images" if part in ("train", "test") else f"other {part}" for part in parts)
        some = ", ".join(changed[:3]) + (", .." if len(changed) > 3 else "")
        count = f": {len(changed)} changed since, {some}" if changed else ""
        return f"{words} (fingerprint{count}); put them back"
    said = [k for k in other if k != "fingerprint"] or other
    return f"other arguments ({'; '.join(f'{k}: {then.get(k)!r} then, {now.get(k)!r} now' for k in said)}); repeat them"
