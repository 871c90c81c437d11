"""A virtual environment with nnsight, transformers, torch and what they need, and nothing else: what a server has.

Made from links into the environment the tests run in, so it takes a fraction of a second and no network.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVER_HAS = ("nnsight", "transformers", "torch", "pillow")  # pillow: transformers' image pipelines want it


def needed(names=SERVER_HAS) -> set[str]:
    """`names` and, through every level, what they require."""
    found, todo = set(), [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(requirement.name))
    return found


def make(folder: Path) -> Path:
    """Make the environment in `folder`; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    for name in needed():
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            link = site / top
            if not link.exists() and not top.endswith(".pth"):
                link.symlink_to(Path(distribution(name).locate_file(top)).resolve())
    return folder / "bin" / "python"
