"""Which tabs are open: a tab that says goodbye or falls silent is freed, unless it is back soon (a reload)."""

import threading
import time
from collections.abc import Callable

GRACE = 8.0  # seconds in which a tab that left may come back
MAX_TABS = 200  # the one that is silent longest goes
SILENCE = 300.0  # seconds without a word; browsers let hidden tabs speak once a minute


class Tabs:
    """Open tabs, swept whenever one speaks.

    Args:
        free: called with each tab that is gone.
        clock: seconds, for tests.
    """

    def __init__(self, free: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._free, self._clock = free, clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._until)

    def alive(self, tab: str) -> None:
        """`tab` spoke."""
        with self._lock:
            self._until[tab] = self._clock() + SILENCE
            gone = sorted(self._until, key=self._until.__getitem__)[: max(0, len(self._until) - MAX_TABS)]
            for other in gone:
                del self._until[other]
        for other in gone:
            self._free(other)
        self.sweep()

    def leaving(self, tab: str) -> None:
        """`tab` is being closed or reloaded."""
        with self._lock:
            if tab not in self._until:
                return
            self._until[tab] = self._clock() + GRACE
        timer = threading.Timer(GRACE + 0.1, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Free the tabs whose time is over."""
        now = self._clock()
        with self._lock:
            gone = [tab for tab, until in self._until.items() if until <= now]
            for tab in gone:
                del self._until[tab]
        for tab in gone:
            self._free(tab)
