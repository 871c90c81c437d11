"""A run folder: files that appear by atomic rename, what is done and what is missing, who works on what.

The folder is the queue. Any number of processes, on any machines that share the disk, may work in it at the same time
(see `clsinterp.runs.units`): a file that exists is done, and what is missing can be claimed.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clsinterp.errors import RequestError, RunError
from clsinterp.runs.job import NOT_ITS_JSON, Job
from clsinterp.runs.locks import Locks
from clsinterp.runs.units import Layout, Unit

IN_USE, TREE, TABLES, UNITS = 0, 1, 2, 3  # places of the lock file; units come last


class RunFolder:
    """Paths, atomic writes and claims of one run.

    Args:
        path: the folder; made by `begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"  # parts of an unfinished run; gone when it is done
        self.locks = Locks(self.work / "lock")

    # -- begin and end -----------------------------------------------------------

    def begin(self, job: dict[str, Any], resume: bool, overwrite: bool) -> bool:
        """Make the folder, or decide what an existing one means; True if the run in it is complete.

        Args:
            job: what the run is, as JSON; its ``identity`` must be that of a run already begun here.
            resume: join the run in the folder.
            overwrite: replace it.

        Raises:
            RequestError: as `refuse_unfit`; the folder's run was asked with other arguments; or `overwrite` was given
                while a process works in it.
            RunError: the folder cannot be made.
        """
        self.refuse_unfit(resume, overwrite)
        if overwrite and self._used():
            self._clear()
        if self._used():
            self._must_match(job["identity"])
            if self.is_done():
                return True
        with self._explaining(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
        stands = self.write_once("request.json", job)
        if stands is job and (self.path / "run.json").is_file():
            self.finish()  # another process completed the run in this very moment
            return True
        self._must_match(job["identity"])
        return False

    def refuse_unfit(self, resume: bool, overwrite: bool) -> None:
        """Refuse a path that this run may not use.

        Raises:
            RequestError: it exists, and neither `resume` nor `overwrite` was given, or both, or it is not a run folder.
        """
        if resume and overwrite:
            raise RequestError("resume and overwrite were both given; choose one.")
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"{self.path} is a file; a folder for the run is expected.")
        if self._used() and not (resume or overwrite):
            raise RequestError(
                f"{self.path} exists and is not empty; pass resume=True, overwrite=True, or another out=."
            )
        if self._used() and overwrite and not self._is_run():
            raise RequestError(
                f"{self.path} is not a run folder, so overwrite=True will not delete it; choose another out=."
            )

    def _clear(self) -> None:
        if self.work.is_dir():
            alone = self.locks.claim(IN_USE)
            self.locks.close()
            if not alone:
                raise RequestError(
                    f"another run is writing into {self.path}; wait for it, join it with resume=True, or choose another out=."
                )
        with self._explaining(self.path):
            # Out of the way first: a half-deleted folder would no longer be known as a run.
            old = self.path.with_name(f".{self.path.name}.replaced")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(self.path, old)
            shutil.rmtree(old)

    def _used(self) -> bool:
        return self.path.is_dir() and any(self.path.iterdir())

    def _is_run(self) -> bool:
        return (self.path / "run.json").is_file() or self.work.is_dir()

    def is_done(self) -> bool:
        """Whether the run in the folder is complete."""
        return (self.path / "run.json").is_file() and not (self.work / "request.json").exists()

    def job(self) -> Job | None:
        """What the unfinished run here is, or None if none was begun.

        Raises:
            RequestError: something else was begun.
        """
        try:
            begun = self._begun()
            return None if begun is None else Job.of_json(begun)
        except NOT_ITS_JSON as error:
            raise self._unknown() from error

    def _begun(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.work / "request.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None  # `begin` says what is wrong with the place

    def _unknown(self) -> RequestError:
        return RequestError(f"{self.path} holds no run that could be resumed; choose another out=.")

    def _must_match(self, identity: dict[str, Any]) -> None:
        manifest = self.path / "run.json"
        try:
            before = self._begun() or (json.loads(manifest.read_text()) if manifest.exists() else None)
            if before is None and self.work.is_dir():
                return  # killed before anything was begun
            asked = before["identity"]  # type: ignore[index]
        except (OSError, *NOT_ITS_JSON) as error:
            raise self._unknown() from error
        now = json.loads(json.dumps(identity))
        if other := [k for k in sorted({*asked, *now}) if asked.get(k) != now.get(k)]:
            what = "; ".join(f"{k}: {asked.get(k)!r} then, {now.get(k)!r} now" for k in other)
            raise RequestError(
                f"{self.path} was begun with other arguments ({what}); repeat them, or choose another out=."
            )

    def finish(self) -> None:
        """Remove the parts; the run is then complete."""
        (self.work / "request.json").unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    # -- units -------------------------------------------------------------------

    def missing(self, layout: Layout, units: Iterable[Unit]) -> list[Unit]:
        """Those of `units` whose result is not there, from one listing of the folder."""
        there = set(os.listdir(self.work))
        return [u for u in units if there.isdisjoint(layout.files(u))]

    def claimed(self, layout: Layout, units: Iterable[Unit]) -> Iterator[Unit]:
        """Those of `units` that nobody else is at and that are still missing, each claimed when it is asked for."""
        for unit in units:
            if self.locks.claim(UNITS + layout.place(unit)):
                if any((self.work / name).exists() for name in layout.files(unit)):
                    self.release(layout, unit)
                else:
                    yield unit

    def release(self, layout: Layout, unit: Unit) -> None:
        """Give up the claim on `unit`."""
        self.locks.release(UNITS + layout.place(unit))

    @contextmanager
    def alone(self, place: int) -> Iterator[bool]:
        """Claim `place` (TREE, TABLES) for a block; the value says whether it was free."""
        free = self.locks.claim(place)
        try:
            yield free
        finally:
            if free:
                self.locks.release(place)

    # -- writing -----------------------------------------------------------------

    def write(self, path: Path, save: Callable[[Path], Any]) -> None:
        """Let `save` write a temporary file, then rename it to `path`.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there before is untouched.
        """
        temporary = self._temporary(path.name)
        try:
            with self._explaining(path):
                self._save(temporary, save)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def write_once(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write `value` as the JSON file `name` among the parts, unless it is there; what stands there then."""
        path, temporary = self.work / name, self._temporary(name)
        try:
            with self._explaining(path):
                self._save(temporary, lambda p: p.write_text(json.dumps(value, indent=1) + "\n"))
                try:
                    os.link(temporary, path)  # unlike a rename it fails if another process was first
                except FileExistsError:
                    return json.loads(path.read_text())
                except OSError:  # a disk without hard links
                    if path.exists():
                        return json.loads(path.read_text())
                    os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return value

    def _temporary(self, name: str) -> Path:
        return self.work / f".{name}.{os.uname().nodename if hasattr(os, 'uname') else ''}.{os.getpid()}.tmp"

    @staticmethod
    def _save(temporary: Path, save: Callable[[Path], Any]) -> None:
        save(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())

    def write_json(self, path: Path, value: Any) -> None:
        """Write `value` as JSON."""
        self.write(path, lambda p: p.write_text(json.dumps(value, indent=1) + "\n"))

    def write_table(self, path: Path, table: pa.Table) -> None:
        """Write `table` as parquet."""
        self.write(path, lambda p: pq.write_table(table, p, compression="zstd"))

    @contextmanager
    def _explaining(self, path: Path) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            number = getattr(error, "errno", None)
            if number == errno.ENOSPC or "No space left" in str(error):
                raise RunError(
                    f"the disk is full, writing {path}; free some space and run again with resume=True."
                ) from error
            if isinstance(error, OSError):
                raise RunError(f"cannot write {path}: {error.strerror or error}.") from error
            raise
