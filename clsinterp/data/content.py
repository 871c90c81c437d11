"""Hashes of images as they are stored, in threads, remembered by file size and times.

A run is of these images, not of these names: an image that is overwritten between two shards is another image.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from clsinterp import files
from clsinterp.errors import ClsinterpError, RequestError

logger = logging.getLogger(__name__)
SIZE = 16  # bytes of a hash
BLOCK = 1 << 20
SAMPLED = 1024  # images of streamed data that are hashed whole; of the others the size is
FRESH = 2 * 10**9  # nanoseconds within which a file can change again without its times telling
AT_ONCE = 64  # images for a thread
CONTENTS, SIZES = "contents", f"sizes, and contents of {SAMPLED} evenly spread"
SCHEMA = pa.schema(
    [("source", pa.string()), *((n, pa.int64()) for n in ("size", "mtime", "ctime")), ("digest", pa.binary(SIZE))]
)
NEVER = (-1, -1, -1)  # no file's
Stamp = tuple[int, int, int]  # size, time of the last write, time of the last change of the entry; nanoseconds


class Memory:
    """What images hashed to, for as long as their files' size and times stay what they were.

    Args:
        rows: as `table` gave them.

    Attributes:
        changed: sources of images whose hash is another than the remembered one.
        grew: whether there is anything that `rows` did not have.
    """

    def __init__(self, rows: pa.Table | None = None) -> None:
        columns = [] if rows is None else [rows[name].to_pylist() for name in SCHEMA.names]
        self._known = {source: ((*stamp,), digest) for source, *stamp, digest in zip(*columns, strict=True)}
        self.changed: list[str] = []
        self.grew = False

    @classmethod
    def read(cls, path: Path) -> Memory:
        """From a file; empty if there is none, or a damaged one: it only saves time."""
        try:
            with files.reading(path, "It is left out."):
                return cls(files.read_table(path).cast(SCHEMA))
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except ClsinterpError as error:
            logger.warning("%s", error)
            return cls()

    def table(self) -> pa.Table:
        """All that is remembered."""
        rows = [(source, *stamp, digest) for source, (stamp, digest) in self._known.items()]
        return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(SCHEMA), schema=SCHEMA)

    def get(self, source: str, stamp: Stamp) -> bytes | None:
        """The hash of `source`, if it was remembered with this stamp."""
        found = self._known.get(source)
        return found[1] if found and found[0] == stamp else None

    def put(self, source: str, stamp: Stamp, digest: bytes) -> None:
        """Remember a hash; where the file was written just now, only to tell later whether it has changed.

        It could be written again within the same tick of the clock, so its times would vouch for nothing.
        """
        before = self._known.get(source)
        if before and before[1] != digest:
            self.changed.append(source)
        self._known[source] = (stamp if time.time_ns() - max(stamp[1:]) > FRESH else NEVER, digest)
        self.grew |= self._known[source] != before


def stamp(path: str | Path) -> Stamp:
    """Size and times of a file."""
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def digests(
    sources: Sequence[str], cell: Callable[[int], Any], stored: Sequence[str], memory: Memory, streamed: bool
) -> list[bytes]:
    """A hash of each image.

    Args:
        sources: names of the images.
        cell: of an image: pyarrow's struct of ``bytes`` and ``path``, of which one is not null.
        stored: the files that hold the bytes, where the images have no files of their own.
        memory: read and added to.
        streamed: hash sizes, and contents of `SAMPLED` images only.

    Raises:
        RequestError: an image that is not there or cannot be read.
    """
    whole = _together(stored)
    sampled = set(range(0, len(sources), max(1, -(-len(sources) // SAMPLED)))) if streamed else range(len(sources))

    def of(i: int) -> tuple[Stamp | None, bytes]:
        found = cell(i)
        data, path = (found["bytes"], found["path"]) if found.is_valid else (found, found)
        if not data.is_valid and not path.is_valid:
            raise RequestError(f"{sources[i]} has no image (the cell is empty).")
        if i not in sampled:
            size = len(data.as_buffer()) if data.is_valid else stamp(path.as_py())[0]
            return None, _hash(lambda digest: digest.update(b"size %d" % size))
        at = whole if data.is_valid else stamp(path.as_py())
        if at is not None and (known := memory.get(sources[i], at)):
            return None, known
        if data.is_valid:
            return at, _hash(lambda digest: digest.update(data.as_buffer()))
        return at, _hash(lambda digest: _update(digest, path.as_py()))

    def some(start: int) -> list[tuple[Stamp | None, bytes]]:
        found = []
        for i in range(start, min(start + AT_ONCE, len(sources))):
            try:
                found.append(of(i))
            except OSError as error:
                raise RequestError(f"cannot read image {sources[i]}: {error.strerror or error}.") from error
        return found

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as threads:
        parts = threads.map(some, range(0, len(sources), AT_ONCE))
        found = [item for part in parts for item in part]
    for source, (at, digest) in zip(sources, found, strict=True):
        if at is not None:
            memory.put(source, at, digest)
    return [digest for _, digest in found]


def _together(stored: Sequence[str]) -> Stamp | None:
    """One stamp for several files."""
    stamps = [stamp(path) for path in stored]
    return (sum(s[0] for s in stamps), max(s[1] for s in stamps), max(s[2] for s in stamps)) if stamps else None


def _hash(fill: Callable[[Any], None]) -> bytes:
    digest = hashlib.blake2b(digest_size=SIZE)
    fill(digest)
    return digest.digest()


def _update(digest: Any, path: str) -> None:
    with open(path, "rb", buffering=0) as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
