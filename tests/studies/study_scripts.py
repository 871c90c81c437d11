"""The scripts of ``experiments/`` as modules, and setups on tiny checkpoints."""

import importlib.util
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def names() -> list[str]:
    """The scripts with the studies' command line."""
    scripts = sorted(EXPERIMENTS.glob("*.py"))
    return [
        p.stem
        for p in scripts
        if "from clsinterp.studies.command import" in p.read_text() and "@study" in p.read_text()
    ]


def script(name: str):
    """The script as a module, imported once."""
    known = f"experiments_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, EXPERIMENTS / f"{name}.py")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def run(name: str, out: Path, *words) -> Path:
    """Run a study as its command line does, with few images; returns the run folder."""
    script(name).main([*map(str, words), "--out", str(out), "--workers", "0", "--batch-size", "16"])
    return out
