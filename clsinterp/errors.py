"""The ways a request can end badly, each with the exit status the command line gives it."""

from __future__ import annotations


class ClsinterpError(Exception):
    """Base of every error this package raises on purpose; its text is meant for the user."""

    exit_status = 1


class RequestError(ClsinterpError, ValueError):
    """What was asked for cannot be done: a wrong argument, checkpoint, folder or image."""

    exit_status = 2


class RunError(ClsinterpError, RuntimeError):
    """The request was fine, but the run failed: NaN in activations, a full disk, memory."""


class TooEarly(ClsinterpError, RuntimeError):
    """Nothing is wrong, but parts that others compute are not there yet: the same command later goes on."""

    exit_status = 3


def explained(error: Exception) -> Exception:
    """`error`, or what it means to the user if it says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        first = (str(error).splitlines() or [""])[0]
        return RunError(f"out of memory: {first} Give a smaller memory_gb= or batch_size=, or fewer workers.")
    return error
