"""A number of bytes that all tabs share: what is large while it is worked on waits its turn."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clsinterp.errors import RequestError


class Budget:
    """Bytes in use at once, over all threads. Who asks for more than is free waits; something larger than all of it runs alone.

    A thread that holds some must not ask for more of the same budget: two such threads could wait for each other.

    Args:
        max_bytes: how many.
        patience: seconds that somebody waits before being turned away.
    """

    def __init__(self, max_bytes: int, patience: float = 30.0) -> None:
        self.max_bytes, self.patience = max_bytes, patience
        self._held = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Bytes in use now."""
        return self._held

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Have `n_bytes` inside this.

        Raises:
            RequestError: none came free in time.
        """
        with self._changed:
            fits = self._changed.wait_for(
                lambda: self._held == 0 or self._held + n_bytes <= self.max_bytes, self.patience
            )
            if not fits:
                raise RequestError("Too many large images are being read just now. Try again in a moment.")
            self._held += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held -= n_bytes
                self._changed.notify_all()
