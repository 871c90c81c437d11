"""Short ways to write a hook name: ``("z", 1)`` for ``blocks.1.attn.hook_z``."""

from __future__ import annotations

from typing import Any

from clsinterp.errors import RequestError
from clsinterp.hooks.points import ATTN

Key = str | tuple


def is_shorthand(key: Any) -> bool:
    """Whether `key` is a name as a tuple: what, the layer (or None), and the part, if it is needed."""
    return (
        isinstance(key, tuple)
        and len(key) in (2, 3)
        and isinstance(key[0], str)
        and (key[1] is None or (isinstance(key[1], int) and not isinstance(key[1], bool)))
        and all(isinstance(part, str) for part in key[2:])
    )


def full_name(key: Key, n_layers: int) -> str:
    """The hook name that `key` stands for; negative layers count from the end.

    Raises:
        RequestError: neither a name nor a shorthand.

    Example:
        >>> full_name(("z", 1), 12), full_name(("scale", -1, "ln1"), 12), full_name("embed", 12)
        ('blocks.1.attn.hook_z', 'blocks.11.ln1.hook_scale', 'hook_embed')
    """
    if isinstance(key, str):
        return key if "hook_" in key else f"hook_{key}"
    if not is_shorthand(key):
        raise RequestError(f"{key!r} was given as a hook name; a name, or (what, layer) such as ('z', 1), is expected.")
    what, layer, *part = key
    if layer is None:
        return f"{part[0]}.hook_{what}" if part else f"hook_{what}"
    layer = layer + n_layers if layer < 0 else layer
    where = part[0] if part else _part(what)
    return ".".join(filter(None, (f"blocks.{layer}", where, f"hook_{what}")))


def _part(what: str) -> str:
    if f"hook_{what}" in ATTN:
        return "attn"
    return "mlp" if what in ("pre", "post") else ""
