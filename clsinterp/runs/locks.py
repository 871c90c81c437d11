"""Claims on parts of a run, held by the kernel: a process that dies, however roughly, holds nothing any more.

They save work and nothing else. Every result is written under its final name by one rename and has the same bytes
whoever computes it, so on a disk whose locks do not work two processes may do the same unit twice, and no harm is done.
"""

import errno
import logging
import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from clsinterp.files import writing

logger = logging.getLogger(__name__)
BUSY = (errno.EACCES, errno.EAGAIN)


class Locks:
    """POSIX record locks on single bytes of one file: they work over NFS, and forked children do not inherit them.

    Args:
        path: the file. Closing any handle on it gives up all of the process's claims, so a process opens it once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[bytes] | None = None
        self._unsupported = fcntl is None

    def _lock(self, kind: int, place: int) -> bool:
        if self._handle is None:
            try:
                self._handle = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            except FileNotFoundError:  # the run was completed by another process, which is no error
                raise
            except OSError:
                with writing(self.path):
                    raise
        try:
            fcntl.lockf(self._handle, kind | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in BUSY:
                return False
            self._unsupported = True
            logger.warning("%s: this disk has no file locks (%s); work may be done twice.", self.path, error.strerror)
        return True

    def claim(self, place: int) -> bool:
        """Try to hold `place` alone; False if another process holds it."""
        return self._unsupported or self._lock(fcntl.LOCK_EX, place)

    def share(self, place: int) -> bool:
        """Try to hold `place` together with others that share it; False if another process holds it alone."""
        return self._unsupported or self._lock(fcntl.LOCK_SH, place)

    def release(self, place: int) -> None:
        """Give `place` up."""
        if not self._unsupported and self._handle is not None:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Give everything up."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
