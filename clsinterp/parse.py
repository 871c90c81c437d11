"""What options say in one string, as values: layers, names, numbers, config fields."""

import json
import re
from pathlib import Path
from typing import Any

from clsinterp.errors import RequestError


def parse_layers(text: str) -> tuple[int, ...] | None:
    """``all`` -> None, ``0,3,11`` and ``0-3,11`` -> the layers."""
    if text == "all":
        return None
    found: list[int] = []
    for part in text.split(","):
        span = re.fullmatch(r"\s*(-?\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if span is None or (span[2] and int(span[2]) < int(span[1])):
            raise RequestError(f"--layers {text} was given; all, or numbers such as 0,3,11 or 0-3,11 are expected.")
        found += range(int(span[1]), int(span[2] or span[1]) + 1)
    return tuple(found)


def parse_names(given: str | None) -> tuple[str, ...] | None:
    """Class names from ``a,b,c`` or from a file with a name a line."""
    if given is None:
        return None
    path = Path(given)
    names = path.read_text().splitlines() if path.is_file() else given.split(",")
    return tuple(name.strip() for name in names if name.strip())


def parse_numbers(text: str | None) -> tuple[float, ...] | None:
    """``0.1,1,10`` -> the numbers."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--alphas {text} was given; numbers such as 0.01,1,100 are expected.") from None


def parse_config(pairs: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` options -> config fields, values as JSON where they are."""
    config = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RequestError(f"--config {pair} was given; KEY=VALUE is expected.")
        try:
            config[key] = json.loads(value)
        except ValueError:
            config[key] = value
    return config
