"""The one name of `datasets` that is not public and is needed; tests/test_unstable.py notices when it moves."""

from typing import Any


def with_features(rows: Any) -> Any:
    """Streamed `rows` with their features known, which may mean looking at the first of them."""
    return rows if rows.features is not None else rows._resolve_features()
