"""A run folder: files that appear by atomic rename, what is done and what is missing, who works on what.

The folder is the queue. Any number of processes, on any machines that share the disk, may work in it at the same time
(see `clsinterp.runs.units`): a file that exists is done, and what is missing can be claimed.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from clsinterp import files
from clsinterp.errors import ClsinterpError, RequestError, RunError
from clsinterp.runs import belongings, refusals
from clsinterp.runs.belongings import BEGUN, REPORT
from clsinterp.runs.job import Job
from clsinterp.runs.locks import Locks
from clsinterp.runs.units import Layout, Unit

IN_USE, TREE, TABLES, UNITS = 0, 1, 2, 3  # places of the lock file; units come last
GO_ON = " and run again with resume=True"


class RunFolder:
    """Paths, atomic writes and claims of one run.

    Args:
        path: the folder; made by `begin`.

    Attributes:
        began: whether `begin` began a run here, rather than joined one.
        key: of `clsinterp.runs.parts.run_key`, once it is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"  # parts of an unfinished run; gone when it is done
        self.locks = Locks(self.work / "lock")
        self.began = False
        self.key: str | None = None
        self._made: list[Path] = []

    # -- begin and end -----------------------------------------------------------

    def begin(self, job: dict[str, Any], resume: bool, overwrite: bool, changed: Sequence[str] = ()) -> bool:
        """Make the folder, or decide what an existing one means; True if the run in it is complete.

        Args:
            job: what the run is, as JSON; its ``identity`` must be that of a run already begun here.
            resume: join the run in the folder.
            overwrite: replace it.
            changed: images that are known to differ from those the run was begun with, for the message.

        Raises:
            RequestError: as `refuse_unfit`; the folder's run was asked with other arguments; or `overwrite` was given
                while a process works in it.
            RunError: the folder cannot be made.
        """
        self.refuse_unfit(resume, overwrite)
        if overwrite and self._used():
            self._clear()
        if self._used():
            self._must_match(job["identity"], changed)
            if self.is_done():
                return True
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        with self._explaining(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
        stands = self.write_once(BEGUN, job)
        if stands is job and (self.path / REPORT).is_file():
            self.finish()  # another process completed the run in this very moment
            return True
        self.began = stands is job
        self._must_match(job["identity"], changed)
        now = json.loads(json.dumps(job))
        if not self.began and (other := [k for k in ("facts", "layout") if stands.get(k) != now.get(k)]):
            raise RequestError(f"{self.work / BEGUN} is damaged ({other[0]}). {self._lost} choose another out=.")
        return False

    def refuse_unfit(self, resume: bool, overwrite: bool) -> None:
        """Refuse a path that this run may not use.

        Raises:
            RequestError: it exists, and neither `resume` nor `overwrite` was given, or both; it holds what no run wrote and is to
                be replaced; or no folder can be called so.
            RunError: no folder can be made there.
        """
        if resume and overwrite:
            raise RequestError("resume and overwrite were both given; choose one.")
        refusals.refuse_impossible(self.path)
        if not self._used():
            return
        if not (resume or overwrite):
            raise RequestError(
                f"{self.path} exists and is not empty; pass resume=True, overwrite=True, or another out=."
            )
        if overwrite:
            with self._explaining(self.path):
                refusals.refuse_strangers(self.path)

    def _clear(self) -> None:
        alone = not self.work.is_dir() or self.locks.claim(IN_USE)
        try:
            if not alone:
                raise RequestError(
                    f"another run is writing into {self.path}; wait for it, join it with resume=True, or choose another out=."
                )
            with self._explaining(self.path):
                belongings.remove(self.path)
        finally:
            self.locks.close()

    def abandon(self) -> None:
        """Take away what `begin` began, unless somebody has joined it."""
        if not self.began:
            return
        with suppress(OSError, ClsinterpError):
            alone = self.locks.claim(IN_USE)
            if alone and not belongings.strangers(self.path):
                belongings.remove(self.path)
                for folder in self._made:
                    folder.rmdir()
        self.locks.close()

    def _used(self) -> bool:
        with self._explaining(self.path):
            return self.path.is_dir() and any(self.path.iterdir())

    def is_done(self) -> bool:
        """Whether the run in the folder is complete."""
        return (self.path / REPORT).is_file() and not (self.work / BEGUN).exists()

    def job(self) -> Job | None:
        """What the unfinished run here is, or None if none was begun.

        Raises:
            RequestError: something else was begun.
        """
        path = self.work / BEGUN
        try:
            with files.reading(path, f"{self._lost} choose another out=."):
                return Job.of_json(files.read_json(path))
        except (FileNotFoundError, NotADirectoryError):
            return None  # `begin` says what is wrong with the place

    @property
    def _lost(self) -> str:
        return f"{self.path} holds no run that could be resumed; begin again with overwrite=True, or"

    def _must_match(self, identity: dict[str, Any], changed: Sequence[str]) -> None:
        asked: dict[str, Any] | None = None
        for path in (self.work / BEGUN, self.path / REPORT):
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                files.reading(path, f"{self._lost} choose another out=."),
            ):
                asked = files.read_json(path, {"identity": dict[str, Any]})["identity"]
                break
        if asked is None:
            if self.work.is_dir():
                return  # killed before anything was begun
            raise RequestError(f"{self._lost} choose another out=.")
        if said := refusals.difference(asked, json.loads(json.dumps(identity)), changed):
            raise RequestError(f"{self.path} was begun with {said}, or choose another out=.")

    def finish(self) -> None:
        """Remove the parts; the run is then complete."""
        with suppress(OSError):
            (self.work / BEGUN).unlink(missing_ok=True)
            belongings.remove_parts(self.work)

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
        files.write(path, save, self._temporary(path.name), GO_ON)

    def write_once(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write `value` as the JSON file `name` among the parts, unless it is there; what stands there then.

        Raises:
            RunError: it cannot be written, or what stands there cannot be read.
        """
        path, temporary = self.work / name, self._temporary(name)
        try:
            with self._explaining(path):
                files.save_json(value, temporary)
                files.sync(temporary)
                try:
                    os.link(temporary, path)  # unlike a rename it fails if another process was first
                    return value
                except FileExistsError:
                    pass
                except OSError:  # a disk without hard links
                    if not path.exists():
                        os.replace(temporary, path)
                        return value
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        with files.reading(path, f"{self._lost} choose another out=.", RunError):
            return files.read_json(path)

    def _temporary(self, name: str) -> Path:
        return self.work / f".{name}.{os.uname().nodename if hasattr(os, 'uname') else ''}.{os.getpid()}.tmp"

    def write_json(self, path: Path, value: Any) -> None:
        """Write `value` as JSON."""
        self.write(path, lambda p: files.save_json(value, p))

    def write_table(self, path: Path, table: pa.Table) -> None:
        """Write `table` as parquet."""
        self.write(path, lambda p: files.save_table(table, p))

    def _explaining(self, path: Path) -> Any:
        return files.writing(path, GO_ON)
