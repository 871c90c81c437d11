"""How a trace is taken apart to travel: code as source, never as byte code, so that Python need not be the same there."""

from __future__ import annotations

import inspect
import io
from contextvars import ContextVar
from types import FunctionType
from typing import Any

import zstandard

from clsinterp.remote.unstable import DEFAULT_PROTOCOL, SourcePickler, pull_env, reduce_block

LEVEL = 6  # of zstd; nnsight's own
# While this is set, a `VisionModel` that is pickled leaves everything behind that a trace cannot use.
shipping: ContextVar[bool] = ContextVar("shipping", default=False)


def serialize(tracer: Any, compress: bool) -> bytes:
    """The request body of `tracer`, as ``RequestModel.serialize`` makes it but for what dataclasses generate."""
    pull_env()  # modules beside the user's script go along
    frame = tracer.info.frame
    body = reduce_block(tracer.node, frame.f_globals, dict(frame.f_locals))
    buffer = io.BytesIO()
    token = shipping.set(True)
    try:
        Pickler(buffer, protocol=DEFAULT_PROTOCOL).dump((tracer, body))
    finally:
        shipping.reset(token)
    return zstandard.ZstdCompressor(level=LEVEL).compress(buffer.getvalue()) if compress else buffer.getvalue()


class Pickler(SourcePickler):
    """Functions without a source file, as dataclasses make them, go as source too; nnsight would send byte code."""

    def source_of(self, func: FunctionType) -> str | None:
        """Source for a method that `dataclasses` made: all an instance needs in a trace. None for anything else."""
        made: Any = inspect.unwrap(func)
        code = made.__code__
        if code.co_filename != "<string>" or "__post_init__" in code.co_names:
            return None
        if made.__name__ in ("__eq__", "__repr__", "__hash__", "__setattr__", "__delattr__"):
            return f"def {made.__name__}(self, *args):\n    return object.{made.__name__}(self, *args)"
        if made.__name__ != "__init__" or any("FACTORY" in name for name in code.co_freevars):
            return None
        names = code.co_varnames[1 : code.co_argcount]
        lines = [f"    object.__setattr__(self, {n!r}, {n})" for n in names] or ["    pass"]
        return "\n".join([f"def __init__({', '.join(['self', *names])}):", *lines])
