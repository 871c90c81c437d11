"""A run folder: files that appear by atomic rename, and the tidy table made from the per-image ranks."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clsinterp.errors import RequestError, RunError
from clsinterp.metrics import identifiability, mean_interval, wilson

CURVES = pa.schema(
    [
        ("model", pa.string()),
        ("family", pa.string()),
        ("curve", pa.string()),
        ("layer", pa.int16()),
        ("probed_layer", pa.int16()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
        ("seed", pa.int64()),
        ("mode", pa.string()),
    ]
)
METRICS = {"lens": ("accuracy", "top5", "identifiability"), "restoration": ("accuracy",), "donor": ("accuracy",)}
RANK_COLUMN = re.compile(r"rank_(?P<curve>[a-z_]+?)(?:_(?P<layer>-?\d+))?(?:_(?P<probed>-?\d+))?")


class RunFolder:
    """Paths and atomic writes of one run.

    Args:
        path: the folder; made by `begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"  # state of an unfinished run; gone when it is done

    def begin(self, identity: dict[str, Any], resume: bool, overwrite: bool) -> bool:
        """Make the folder, or decide what an existing one means; True if the run in it is complete.

        Raises:
            RequestError: as `refuse_unfit`; or `resume` was given, but the folder's run was asked with other arguments.
            RunError: the folder cannot be made.
        """
        self.refuse_unfit(resume, overwrite)
        if self.work.is_dir():
            with self.lock():  # refuses if another run is writing
                pass
        if overwrite and self._used():
            with self._explaining(self.path):
                # Out of the way first: a half-deleted folder would no longer be known as a run.
                old = self.path.with_name(f".{self.path.name}.replaced")
                shutil.rmtree(old, ignore_errors=True)
                os.replace(self.path, old)
                shutil.rmtree(old)
        if self._used():
            self._must_match(identity)
            if self.is_done():
                return True
        with self._explaining(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
        self.write_json(self.work / "request.json", identity)
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
            raise RequestError(f"{self.path} exists and is not empty; pass --resume, --overwrite, or another --out.")
        if self._used() and overwrite and not self._is_run():
            raise RequestError(
                f"{self.path} is not a run folder, so --overwrite will not delete it; choose another --out."
            )

    def _used(self) -> bool:
        return self.path.is_dir() and any(self.path.iterdir())

    def _is_run(self) -> bool:
        return (self.path / "run.json").is_file() or self.work.is_dir()

    def is_done(self) -> bool:
        """Whether the run in the folder is complete."""
        return (self.path / "run.json").is_file() and not (self.work / "request.json").exists()

    def _must_match(self, identity: dict[str, Any]) -> None:
        asked, manifest = self.work / "request.json", self.path / "run.json"
        if not asked.exists() and not manifest.exists() and self.work.is_dir():
            return  # killed before anything was begun
        try:
            if asked.is_file():
                before = json.loads(asked.read_text())
            else:
                before = json.loads(manifest.read_text())["identity"]
        except (OSError, ValueError, KeyError) as error:
            raise RequestError(f"{self.path} holds no run that could be resumed; choose another --out.") from error
        now = json.loads(json.dumps(identity))
        other = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        if other:
            what = "; ".join(f"{k}: {before.get(k)!r} then, {now.get(k)!r} now" for k in other)
            raise RequestError(
                f"{self.path} was begun with other arguments ({what}); repeat them, or choose another --out."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder; a second run into it is refused.

        Raises:
            RequestError: another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows; there the second writer is not noticed
            yield
            return
        with (self.work / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RequestError(
                    f"another run is writing into {self.path}; wait for it, or choose another --out."
                ) from error
            yield

    def finish(self) -> None:
        """Remove the working state; the run is then complete."""
        (self.work / "request.json").unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    # -- writing ---------------------------------------------------------------

    def write(self, path: Path, save: Callable[[Path], Any]) -> None:
        """Let `save` write a temporary file beside `path`, then rename it.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there before is untouched.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with self._explaining(path):
                save(temporary)
                with temporary.open("rb") as handle:
                    os.fsync(handle.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

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
                    f"the disk is full, writing {path}; free some space and run again with --resume."
                ) from error
            if isinstance(error, OSError):
                raise RunError(f"cannot write {path}: {error.strerror or error}.") from error
            raise


def curves_table(images: pa.Table, facts: dict[str, Any]) -> pa.Table:
    """One row per point of every curve, from the rank columns of ``images.parquet``.

    Args:
        images: the per-image table.
        facts: ``model``, ``family``, ``seed``, ``mode``, ``n_classes`` (of the classifier) and ``n_labels`` (of the data).

    Returns:
        Columns as in `CURVES`. Intervals are 95%: Wilson for proportions, normal for the mean identifiability. ``layer``
        is null for the intact curves; ``probed_layer`` is set for restoration only; ``mode`` is null where nothing was
        swapped.
    """
    rows = []
    for name in images.column_names:
        if not (found := RANK_COLUMN.fullmatch(name)):
            continue
        curve = found["curve"]
        layer = None if found["layer"] is None else int(found["layer"])
        probed = None if found["probed"] is None else int(found["probed"])
        rank = torch.from_numpy(images[name].to_numpy().copy()).long()
        of_labels = curve in ("probe", "restoration")
        n_classes = facts["n_labels"] if of_labels else facts["n_classes"]
        swapped = curve in ("donor", "restoration") or curve.startswith("shuffle")
        for metric in METRICS.get(curve.removesuffix("_distill"), ("accuracy", "top5")):
            value, low, high = _point(metric, rank, n_classes)
            rows.append(
                {
                    "model": facts["model"],
                    "family": facts["family"],
                    "curve": curve,
                    "layer": layer,
                    "probed_layer": probed,
                    "metric": metric,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(rank),
                    "seed": facts["seed"],
                    "mode": facts["mode"] if swapped else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=CURVES)


def _point(metric: str, rank: torch.Tensor, n_classes: int) -> tuple[float, float, float]:
    if metric == "identifiability":
        values = identifiability(rank, n_classes)
        return float(values.mean()), *mean_interval(values, 0.0, 1.0)
    hits = int((rank < {"accuracy": 1, "top5": 5}[metric]).sum())
    return hits / len(rank), *wilson(hits, len(rank))


def read_run(path: str | Path) -> tuple[dict[str, Any], pa.Table]:
    """The manifest and the curves of a finished run.

    Raises:
        RequestError: not a finished run folder.
    """
    folder = Path(path)
    try:
        return json.loads((folder / "run.json").read_text()), pq.read_table(folder / "curves.parquet")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{folder} is not a finished run folder (run.json and curves.parquet are expected)."
        ) from error
