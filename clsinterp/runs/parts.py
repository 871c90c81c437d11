"""Parts of an unfinished run: each says which run and which part it is, and carries checksums of what it holds.

A part that is cut short, changed, renamed, or of another run is refused by name, not added up.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from clsinterp import files
from clsinterp.errors import RunError
from clsinterp.runs.belongings import BEGUN, content
from clsinterp.runs.folder import RunFolder

REMEDY = "Delete that file; clsinterp run with the same arguments and --resume then computes it again."
RUN, NAME, SCHEMA = "run", "name", "schema"


def save_tensors(
    folder: RunFolder, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` as the file `path` of the run in `folder`, with `metadata` beside what says whose they are."""
    whole = {**(metadata or {}), **_whose(folder, path)}
    folder.write(path, lambda p: files.save_tensors(tensors, p, whole))


def load_tensors(folder: RunFolder, path: Path) -> dict[str, Tensor]:
    """The tensors in `path`.

    Raises:
        RunError: damaged, or of another run.
        FileNotFoundError: it is not there.
    """
    with files.reading(path, REMEDY, RunError):
        tensors, metadata = files.read_tensors(path)
        _refuse_others(folder, path, metadata)
        return tensors


def verified(folder: RunFolder, path: Path) -> Path:
    """`path`, a tensor file to be read in slices, after its checksum was looked at once.

    Raises:
        RunError: damaged, or of another run.
        FileNotFoundError: it is not there.
    """
    with files.reading(path, REMEDY, RunError):
        _refuse_others(folder, path, files.verify_tensors(path))
    return path


def save_rows(folder: RunFolder, path: Path, rows: pa.Table) -> None:
    """Write `rows` as the file `path` of the run in `folder`."""
    mine = {**_whose(folder, path), SCHEMA: _columns(rows)}
    folder.write_table(path, rows.replace_schema_metadata(mine))


def load_rows(folder: RunFolder, path: Path) -> pa.Table:
    """The rows in `path`, as they were saved.

    Raises:
        RunError: damaged, or of another run.
        FileNotFoundError: it is not there.
    """
    with files.reading(path, REMEDY, RunError):
        rows = files.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
        rows = rows.replace_schema_metadata(None)
        _refuse_others(folder, path, metadata)
        if metadata.get(SCHEMA) != _columns(rows):
            raise ValueError("its columns are not those it was written with")
        return rows


def _columns(rows: pa.Table) -> str:
    return f"{zlib.crc32(repr([(f.name, str(f.type)) for f in rows.schema]).encode()):08x}"


def _whose(folder: RunFolder, path: Path) -> dict[str, str]:
    return {RUN: run_key(folder), NAME: path.name}


def _refuse_others(folder: RunFolder, path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get(NAME) != path.name:
        raise ValueError(f"it says it is {metadata.get(NAME, 'no part of a run')}")
    if metadata.get(RUN) != run_key(folder):
        raise ValueError("it is of another run")


def run_key(folder: RunFolder) -> str:
    """A hash of what the run in `folder` was asked; the same in all processes, and when it is begun again.

    Raises:
        FileNotFoundError: another process has completed the run.
    """
    if folder.key is not None:
        return folder.key
    identity = content(folder.work / BEGUN).get("identity")
    if identity is None:
        raise FileNotFoundError(folder.work / BEGUN)
    folder.key = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()
    return folder.key
