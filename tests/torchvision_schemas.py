"""Makes torchvision importable beside a CPU build of torch, in this environment alone; a step of ``make test``.

timm and open_clip import torchvision, whose registry wheels belong to CUDA builds of torch. Beside a CPU build its import
ends in "operator torchvision::nms does not exist", for two schemas that its missing C library would have brought.
Where that is so, a hook is written into the environment which declares them when torchvision is first imported. Users have
builds that match, and the package does nothing of the kind.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''"""Written by clsinterp's tests/torchvision_schemas.py, see there."""

import importlib.abc
import sys

kept = []


class Schemas(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            kept.append(torch.library.Library("torchvision", "DEF"))
            for op in ("nms", "qnms"):
                kept[0].define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, Schemas())
'''


def imports() -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)


def main() -> None:
    tried = imports()
    if tried.returncode == 0:
        return
    if "torchvision::nms does not exist" not in tried.stderr:
        sys.exit(f"torchvision cannot be imported: {tried.stderr.strip().splitlines()[-1]}")
    site = Path(sysconfig.get_paths()["purelib"])
    (site / "clsinterp_torchvision_schemas.py").write_text(HOOK)
    (site / "clsinterp_torchvision_schemas.pth").write_text("import clsinterp_torchvision_schemas\n")
    if (tried := imports()).returncode:
        sys.exit(f"torchvision cannot be imported: {tried.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
