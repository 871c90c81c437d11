"""How soon a command is there."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clsinterp.bench.timing import Row, compare
from clsinterp.models.source import resolve


def startup_rows(quick: bool) -> list[Row]:
    """``--help`` in seconds; a dry run of eight images against loading its model with transformers."""
    repeats = 3 if quick else 9
    clsinterp = [sys.executable, "-m", "clsinterp.cli"]

    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(arguments, capture_output=True, check=True)

    bare = command(sys.executable, "-c", "pass")
    helped = compare(
        "clsinterp --help, in CPU seconds", "python -c pass", "", command(*clsinterp, "--help"), bare, repeats
    )
    rows = [replace(helped, ratio=helped.ours, low=helped.ours, high=helped.ours, target="< 0.5")]
    folder = resolve("zoo/vit")
    load = (
        f"import torch, nnsight; from transformers import ViTForImageClassification as V; V.from_pretrained({folder!r})"
    )
    loading = command(sys.executable, "-c", load)
    with tempfile.TemporaryDirectory() as temporary:
        asked = [*clsinterp, "run", "zoo/vit", "--data", "zoo", "--limit", "8", "--quiet", "--overwrite"]
        dry = command(*asked, "--out", str(Path(temporary) / "run"))
        against = "import torch, transformers, nnsight, and from_pretrained"
        rows.append(compare("clsinterp run zoo/vit --limit 8", against, "< 1.35", dry, loading, repeats))
    return rows
