"""SIGTERM and SIGHUP end a command as Ctrl-C does: everything in hand is put away, and the exit status says which it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Ended(KeyboardInterrupt):
    """A signal that asks the process to end.

    Attributes:
        exit_status: 128 and the signal's number, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def exit_status(error: KeyboardInterrupt) -> int:
    """The exit status of a command that was interrupted: 130 for Ctrl-C."""
    return getattr(error, "exit_status", 128 + signal.SIGINT)


@contextmanager
def ending_as_interrupts() -> Iterator[None]:
    """Raise `Ended` where a signal of `ENDING` comes within the block.

    A signal that whoever started the process has it ignore (``nohup``) stays ignored. A second one ends the process at once.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            if signal.getsignal(each) is end:
                signal.signal(each, signal.SIG_DFL)
        raise Ended(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may
        yield
        return
    before = {each: signal.getsignal(each) for each in ENDING}
    for each, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(each, end)
    try:
        yield
    finally:
        for each, handler in before.items():
            if handler is not None:
                signal.signal(each, handler)
