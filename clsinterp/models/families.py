"""The family table: one row for each family of vision transformers, whichever library it is from.

What differs between families stands in its rows and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clsinterp.errors import RequestError
from clsinterp.models.family import Family
from clsinterp.models.rows import hf, hf_refused, open_clip, text
from clsinterp.models.rows import timm as timm_rows

FAMILIES: tuple[Family, ...] = (*hf.ROWS, *text.ROWS, *timm_rows.ROWS, *open_clip.ROWS)


def find_family(
    architectures: Iterable[str] | None, config: Any, library: str = "transformers", text: bool = False
) -> Family:
    """The row of `library` for a checkpoint whose ``config.json`` names `architectures`.

    With `text`, the row whose classifier is made of class names.

    Raises:
        RequestError: no row serves them; the message lists what is supported.
    """
    names = list(architectures or ())
    rows = [row for row in FAMILIES if row.library == library and row.text == text]
    named_by = [row for row in rows if set(names) & set(row.architectures)]
    for row in named_by:
        if all(getattr(config, key, None) == value for key, value in (row.when or {}).items()):
            return row
    for key in {key: None for row in named_by for key in row.when or {}}:
        able = " or ".join(dict.fromkeys(repr(row.when[key]) for row in named_by if row.when))
        raise RequestError(f"the config has {key} {getattr(config, key, None)!r}; {able} is expected.")
    named = ", ".join(names) or "(none named in config.json)"
    for name in names:
        if why := hf_refused.reason(name):
            raise RequestError(f"{name} is not supported: {why}. docs/models.md and clsinterp models list what loads.")
    known = ", ".join(dict.fromkeys(a for row in rows for a in row.architectures))
    raise RequestError(f"architecture {named} is not in the family table. Supported: {known}.")
