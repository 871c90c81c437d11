"""Whether a value is of a type, looked at all the way down: what a file says is not taken on trust."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def misfit(value: Any, kind: Any, name: str) -> str | None:
    """What of `value` is not of the type `kind`, or None if all of it is.

    Args:
        value: plain values, lists, tuples, mappings, dataclasses.
        kind: a type, a generic of these, a union, a dataclass (whose attributes are looked at), or a dictionary key -> kind,
            whose keys a mapping must have (it may have more).
        name: of the value, for the message.

    Example:
        >>> misfit({"a": [1, "2"]}, dict[str, list[int]], "it")
        "it.a[1] is '2', not int"
    """
    if kind is Any:
        return None
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            return _said(value, dict, name)
        lacking = [key for key in kind if key not in value]
        return f"{name} has no {lacking[0]}" if lacking else _first(value, kind, name)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        wrong = [misfit(value, arg, name) for arg in args]
        return None if None in wrong else next((w for w in wrong if w and " is " not in w), _said(value, kind, name))
    if is_dataclass(kind):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            return _said(value, kind, name)
        hints = get_type_hints(kind)
        kinds = {f.name: hints[f.name] for f in fields(kind)}
        return _first({key: getattr(value, key) for key in kinds}, kinds, name)
    if not _is(value, origin or kind):
        return _said(value, kind, name)
    if isinstance(value, Mapping) and args:
        keys = (misfit(key, args[0], f"a key of {name}") for key in value)
        return next(filter(None, keys), None) or _first(value, dict.fromkeys(value, args[1]), name)
    if isinstance(value, list | tuple) and args:
        each = args if origin is tuple and args[-1] is not ... else (args[0],) * len(value)
        if len(each) != len(value):
            return _said(value, kind, name)
        found = (misfit(item, arg, f"{name}[{i}]") for i, (item, arg) in enumerate(zip(value, each, strict=True)))
        return next(filter(None, found), None)
    return None


def _first(values: Mapping[Any, Any], kinds: Mapping[Any, Any], name: str) -> str | None:
    found = (misfit(values[key], kind, f"{name}.{key}") for key, kind in kinds.items())
    return next(filter(None, found), None)


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):  # True is no number, a whole number is a float
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return value is None if kind is type(None) else isinstance(value, kind)


def _said(value: Any, kind: Any, name: str) -> str:
    shown = repr(value)
    return f"{name} is {shown[:40] + '..' if len(shown) > 42 else shown}, not {getattr(kind, '__name__', kind)}"
