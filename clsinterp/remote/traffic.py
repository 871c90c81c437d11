"""Bytes over all attempts at a run: what an interrupted one has sent and received counts when it is resumed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from clsinterp.remote.server import Server
from clsinterp.results import RunFolder


@contextmanager
def counted(server: Server | None, folder: RunFolder) -> Iterator[None]:
    """Add what earlier attempts counted to ``server.traffic``, and leave the sum in the folder if this one fails."""
    if server is None:
        yield
        return
    kept = folder.work / "traffic.json"
    if kept.exists():
        for name, value in json.loads(kept.read_text()).items():
            setattr(server.traffic, name, getattr(server.traffic, name) + value)
    try:
        yield
    finally:
        if folder.work.is_dir():
            folder.write_json(kept, asdict(server.traffic))
