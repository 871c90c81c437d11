"""Files that are whole or absent, and readers that name the file in every error.

A file is written under another name and renamed, so nobody ever sees half of it, and its mode follows the umask. Tensors and
parquet pages carry checksums: a flipped bit is found on reading, not in the numbers.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsinterp.errors import ClsinterpError, RequestError, RunError
from clsinterp.shapes import misfit

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT)
BLOCK = 1 << 20
CHECKSUM = "crc32"  # among a tensor file's metadata


# -- writing -----------------------------------------------------------------------


@contextmanager
def writing(path: Path, go_on: str = "") -> Iterator[None]:
    """Turn what can go wrong while `path` is written into one message.

    Args:
        path: for the message.
        go_on: what to do once a full disk has room again, such as " and run again".

    Raises:
        RunError: the disk is full, or the place cannot be written; the message says whose it is where that is why.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in FULL or "No space left" in str(error):  # pyarrow and safetensors say it in words only
            raise RunError(f"the disk is full, writing {path}; free some space{go_on}.") from error
        if isinstance(error, OSError):
            raise RunError(f"cannot write {path}: {error.strerror or error}.{_whose(path, error)}") from error
        raise


def _whose(path: Path, error: OSError) -> str:
    """Who may write at `path`, where that is what failed."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), None)
    if there is None:
        return ""
    facts = there.lstat()
    return (
        f" {there} belongs to user {facts.st_uid} (mode {stat.filemode(facts.st_mode)}), and this is user {os.getuid()}; "
        "people who share a run need a folder that their group can write and umask 002. Else choose another out=."
    )


def write(path: Path, save: Callable[[Path], Any], temporary: Path | None = None, go_on: str = "") -> None:
    """Let `save` write a temporary file, then rename it to `path`.

    Args:
        path: the file to be.
        save: given the temporary file's path.
        temporary: on the same disk; beside `path` unless given.
        go_on: as for `writing`.

    Raises:
        RunError: as `writing`; what was there before is untouched.
    """
    temporary = temporary or path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        with writing(path, go_on):
            save(temporary)
            sync(temporary)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has the file: only then may it be renamed."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whose metadata hold a checksum of its data.

    Not with safetensors' own `save_file`, which makes files that no other user can read, whatever the umask.
    """
    from safetensors.torch import save

    whole = memoryview(save(dict(tensors)))
    size = int.from_bytes(whole[:8], "little")
    data = whole[8 + size :]
    header = json.loads(bytes(whole[8 : 8 + size]))
    header = {"__metadata__": {**(metadata or {}), CHECKSUM: f"{zlib.crc32(data):08x}"}, **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.writelines((len(text).to_bytes(8, "little"), text, data))


def save_table(table: pa.Table, path: Path) -> None:
    """Write parquet with a checksum on every page."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def save_json(value: Any, path: Path) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


# -- reading -----------------------------------------------------------------------


@contextmanager
def reading(path: Path, remedy: str, error: type[ClsinterpError] = RequestError) -> Iterator[None]:
    """Turn what can go wrong while `path` is read and made sense of into one message.

    A file that is not there stays a FileNotFoundError (or NotADirectoryError): whether that is an error is for the caller to say.

    Args:
        path: for the message.
        remedy: what to do about a damaged file, a sentence.
        error: what is raised.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, ClsinterpError, MemoryError):
        raise
    except PermissionError as raised:
        raise error(
            f"{path} cannot be read: {raised.strerror}. Its owner can make it readable (umask 022 or 002 does so for new files)."
        ) from raised
    except OSError as raised:
        raise error(f"{path} cannot be read ({raised.strerror or _line(raised)}). {remedy}") from raised
    except Exception as raised:  # parsers of JSON, parquet and tensors raise a dozen kinds on what others wrote
        raise error(f"{path} is damaged, or another file than expected ({_line(raised)}). {remedy}") from raised


def _line(error: Exception) -> str:
    said = (str(error).strip().splitlines() or [""])[0][:160]
    return f"no {said}" if isinstance(error, KeyError) else said or type(error).__name__


def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """The JSON in `path`, which must fit the type `kind`; to be called within `reading`."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if wrong := misfit(value, kind, "the top"):
        raise ValueError(wrong)
    return value


def read_table(path: Path) -> pa.Table:
    """The parquet table in `path`, checksums verified; to be called within `reading`."""
    import pyarrow.parquet as pq

    with path.open("rb") as handle:
        return pq.read_table(handle, page_checksum_verification=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in `path` and their metadata, checksum verified; to be called within `reading`."""
    from safetensors.torch import load

    metadata = verify_tensors(path)
    return load(path.read_bytes()), metadata


def verify_tensors(path: Path) -> dict[str, str]:
    """The metadata of a tensor file whose data are what its checksum says; to be called within `reading`.

    A file without a checksum (of an older version, or not of this package) is taken as it is.
    """
    with path.open("rb") as handle:
        size, whole = int.from_bytes(handle.read(8), "little"), os.fstat(handle.fileno()).st_size
        if not 0 < size <= whole - 8:
            raise ValueError("it ends before its header does")
        header = json.loads(handle.read(size))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if 8 + size + max((entry["data_offsets"][1] for entry in entries.values()), default=0) != whole:
            raise ValueError("it is not as long as its header says")
        metadata = header.get("__metadata__", {})
        if CHECKSUM in metadata:
            found = 0
            while block := handle.read(BLOCK):
                found = zlib.crc32(block, found)
            if f"{found:08x}" != metadata[CHECKSUM]:
                raise ValueError("its checksum is wrong")
    return metadata


def file_hash(path: Path) -> str:
    """A hash of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
