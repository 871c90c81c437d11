"""What `pip install clsinterp` would put on a machine: sdist and wheel build, and what is installed from them works alone."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import clsinterp

ROOT = Path(__file__).parents[1]
LARGEST = 15e6  # bytes of the wheel: the zoo is most of it
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
TRY = """
import clsinterp, sys
from clsinterp import VisionModel, sample_images
images, labels = sample_images(20)
logits = VisionModel("zoo/vit")(images).logits
print(clsinterp.__file__, clsinterp.__version__, float((logits.argmax(-1) == labels).double().mean()))
"""

pytestmark = pytest.mark.nightly


def run(*command: object, where: Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=where, env=os.environ | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """sdist, built from what git knows; and the wheel, built from the sdist."""
    root = tmp_path_factory.mktemp("packaging")
    tree = root / "tree"
    for name in run("git", "ls-files", "-z", where=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    sdist = root / run(sys.executable, "-c", BUILD, "build_sdist", root, where=tree).split()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(root / "unpacked", filter="data")
    (source,) = (root / "unpacked").iterdir()
    return sdist, root / run(sys.executable, "-c", BUILD, "build_wheel", root, where=source).split()[-1]


def test_the_wheel_holds_code_zoo_cards_and_licence(built):
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"clsinterp-{clsinterp.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
    package = Path(clsinterp.__file__).parent
    here = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    assert here - names == set()
    assert {f"{info}/licenses/LICENSE", "clsinterp/zoo/vit/README.md", "clsinterp/py.typed"} <= names
    assert not [name for name in names if name.split("/")[0] in ("tests", "experiments", "docs")]
    assert "License-Expression: MIT" in metadata
    assert "clsinterp = clsinterp.cli:main" in zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode()


def test_the_wheel_is_not_large(built):
    assert built[1].stat().st_size < LARGEST


def test_what_is_installed_works_away_from_the_repository(built, tmp_path):
    target = tmp_path / "installed"
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, built[1],
        where=tmp_path,
    )  # fmt: skip
    alone = {"PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}
    file, version, accuracy = run(sys.executable, "-c", TRY, where=tmp_path, **alone).split()[-3:]
    assert file.startswith(str(target))
    assert version == clsinterp.__version__
    assert float(accuracy) > 0.6
    assert version in run(target / "bin" / "clsinterp", "--version", where=tmp_path, **alone)
