"""An environment with a real NDIF server for the remote tests; a step of ``make test-ndif``.

    python tests/ndif_venv.py PYTHON FOLDER

makes a virtual environment of PYTHON (3.12 or 3.13, as NDIF wants) in FOLDER, once: NDIF, a store for large results, and nnsight,
transformers and torch in the versions of the Python that runs this. Where something is missing on the machine, it ends with
one line.
"""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

NDIF = "0.1.2"
SAME = ("nnsight", "transformers", "torch", "torchvision")
NAME = "import sys; print(*sys.version_info[:2])"


def main(python: str, folder: Path) -> None:
    """See the module."""
    found = shutil.which(python)
    done = subprocess.run([found, "-c", NAME], capture_output=True, text=True) if found else None
    if done is None or done.returncode or tuple(map(int, done.stdout.split())) not in ((3, 12), (3, 13)):
        sys.exit(f"make test-ndif: {python} is no Python 3.12 or 3.13, which NDIF wants; name one by PYTHON312=.")
    if shutil.which("redis-server") is None:
        sys.exit(
            "make test-ndif: redis-server is not on the path; install it (Debian, Ubuntu: apt-get install redis-server)."
        )
    wanted = [f"ndif[api,ray]=={NDIF}", "moto[server]", "pillow"]
    wanted += [f"{name}=={version(name).split('+')[0]}" for name in SAME]
    ready = folder / ".ready"
    if ready.exists() and ready.read_text() == "\n".join(wanted):
        return
    subprocess.run([found, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    if subprocess.run(pip).returncode:
        sys.exit("make test-ndif: NDIF could not be installed; pip says why, above.")
    ready.write_text("\n".join(wanted))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
