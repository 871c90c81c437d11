"""The two ways a request can end badly, each with the exit status the command line gives it."""

from __future__ import annotations


class ClsinterpError(Exception):
    """Base of every error this package raises on purpose; its text is meant for the user."""

    exit_status = 1


class RequestError(ClsinterpError, ValueError):
    """What was asked for cannot be done: a wrong argument, checkpoint, folder or image."""

    exit_status = 2


class RunError(ClsinterpError, RuntimeError):
    """The request was fine, but the run failed: NaN in activations, a full disk, memory."""
