"""How a trace is taken apart to travel: code as source, never as byte code, so that Python need not be the same there."""

from __future__ import annotations

import copyreg
import inspect
import io
from contextvars import ContextVar
from types import FunctionType
from typing import Any

import zstandard
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.serialization import (
    DEFAULT_PROTOCOL,
    CustomCloudPickler,
    _fill,
    _load_function,
    reduce_block,
)
from nnsight.ndif import pull_env

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


class Pickler(CustomCloudPickler):
    """nnsight's pickler, which would send functions without a source file, as dataclasses make them, as byte code."""

    def _dynamic_function_reduce(self, func: FunctionType) -> tuple[Any, ...]:
        source = _generated(inspect.unwrap(func))
        if source is None:
            return super()._dynamic_function_reduce(func)
        args: Any = (source, func.__name__, func.__defaults__, func.__kwdefaults__, {}, "generated", 1)
        return _load_function, args, {}, None, None, _fill


def _generated(func: Any) -> str | None:
    """Source for a method that `dataclasses` made: all an instance needs in a trace. None for anything else."""
    code = func.__code__
    if code.co_filename != "<string>" or "__post_init__" in code.co_names:
        return None
    if func.__name__ in ("__eq__", "__repr__", "__hash__", "__setattr__", "__delattr__"):
        return f"def {func.__name__}(self, *args):\n    return object.{func.__name__}(self, *args)"
    if func.__name__ != "__init__" or any("FACTORY" in name for name in code.co_freevars):
        return None
    names = code.co_varnames[1 : code.co_argcount]
    lines = [f"    object.__setattr__(self, {n!r}, {n})" for n in names] or ["    pass"]
    return "\n".join([f"def __init__({', '.join(['self', *names])}):", *lines])


def _reduce_eproperty(value: eproperty) -> tuple[Any, ...]:
    # The token views are class attributes of this type, which pickle cannot take apart by itself; all of it is in __dict__.
    return property.__new__, (eproperty,), value.__dict__


copyreg.pickle(eproperty, _reduce_eproperty)
