"""Which files of a folder a run has written: nothing else is ever removed."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT, BEGUN, SEEN = "run.json", "request.json", "seen.parquet"
RUN_FILES = ("images.parquet", "curves.parquet", "probes.safetensors", "figure.html")
STUDY_FILES = (
    "summary.parquet",
    "summary.md",
    "figure.html",
    "figure.json",
)  # and the tables and further figures that its JSON lists
LISTED = re.compile(r"[\w.-]+\.parquet|figure-\d+\.json")
TEMPORARY = re.compile(r"\..+\.tmp")
PART = re.compile(r"(request|plan)\.json|lock|seen\.parquet|(train|solve|test)-[\d-]+\.(safetensors|parquet)")
RECORD = re.compile(r".+\.json")


def content(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where there is none."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def is_run(path: Path) -> bool:
    """Whether the folder `path` has what only this package writes: a report that names it, or parts."""
    identity = content(path / REPORT).get("identity")
    named = isinstance(identity, dict) and not {"clsinterp", "study"}.isdisjoint(identity)
    return named or ((path / ".work").is_dir() and not (path / REPORT).exists())


def strangers(path: Path) -> list[str]:
    """What lies in the run folder `path` and is none of a run's files, relative to it, sorted."""
    listed: set[str] = set()
    for said in (content(path / REPORT), content(path / ".work" / BEGUN)):
        files = said.get("files")
        listed |= {name for name in files if isinstance(name, str)} if isinstance(files, dict | list) else set()
    own = {REPORT, *RUN_FILES, *STUDY_FILES, *(name for name in listed if LISTED.fullmatch(name))}
    found = [p for p in path.iterdir() if not (p.name in own and _file(p)) and p.name != ".work"]
    if (work := path / ".work").is_dir():
        found += [p for p in work.iterdir() if not _part(p) and p.name != "workers"]
        if (records := work / "workers").is_dir():
            found += [p for p in records.iterdir() if not (_file(p) and RECORD.fullmatch(p.name)) and not _temporary(p)]
        elif records.exists():
            found.append(records)
    elif work.exists():
        found.append(work)
    return sorted(str(p.relative_to(path)) for p in found)


def _file(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


def _temporary(path: Path) -> bool:
    return _file(path) and TEMPORARY.fullmatch(path.name) is not None


def _part(path: Path) -> bool:
    return _temporary(path) or (_file(path) and PART.fullmatch(path.name) is not None)


def remove(path: Path) -> None:
    """Remove all files of the run in `path`, which has no `strangers`, and leave the folder.

    What says that this is a run goes last: broken off anywhere, it still is one.
    """
    for entry in path.iterdir():
        if entry.name not in (REPORT, ".work"):
            entry.unlink(missing_ok=True)
    remove_parts(path / ".work")
    (path / REPORT).unlink(missing_ok=True)


def remove_parts(work: Path) -> None:
    """Remove the parts in `work`, and it too if nothing else is in it; it may be a link to a folder elsewhere."""
    if not work.is_dir():
        return
    records = work / "workers"
    parts = [*work.iterdir(), *(records.iterdir() if records.is_dir() else ())]
    last = {BEGUN: 1, "lock": 2}
    for part in sorted(parts, key=lambda p: last.get(p.name, 0)):
        if _part(part) or (
            part.parent == records and _file(part) and (RECORD.fullmatch(part.name) or _temporary(part))
        ):
            part.unlink(missing_ok=True)
    for folder in (records, work):
        with suppress(OSError):  # not empty, or gone
            folder.unlink() if folder.is_symlink() else folder.rmdir()
