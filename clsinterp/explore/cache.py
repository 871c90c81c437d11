"""Lens views kept by image and intervention: bounded, made one at a time, freed with the tabs that asked for them."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows its size."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


V = TypeVar("V", bound=Sized)


class TabCache(Generic[V]):
    """Values by key, each with the tabs that use it.

    Values are made under the lock: the model behind them serves one request at a time, and two tabs that ask for the
    same value get it made once.

    Args:
        max_bytes: the oldest values go when all together are larger; the newest always stays.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.RLock()
        self._values: OrderedDict[object, V] = OrderedDict()
        self._tabs: dict[object, set[str]] = {}

    def __len__(self) -> int:
        with self.lock:
            return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self.lock:
            return sum(value.nbytes for value in self._values.values())

    def get(self, key: object, tab: str, make: Callable[[], V]) -> V:
        """The value of `key`, made if it is not there."""
        with self.lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            self._tabs.setdefault(key, set()).add(tab)
            while len(self._values) > 1 and self.nbytes > self.max_bytes:
                oldest, _ = self._values.popitem(last=False)
                self._tabs.pop(oldest, None)
            return self._values[key]

    def drop(self, tab: str) -> None:
        """Let go of what only `tab` uses."""
        with self.lock:
            for key, tabs in list(self._tabs.items()):
                tabs.discard(tab)
                if not tabs:
                    del self._tabs[key], self._values[key]
