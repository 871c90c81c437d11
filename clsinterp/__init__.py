"""Where vision transformers hold the label in their CLS token, and where their output depends on it."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsinterp.views.lens import lens as lens
    from clsinterp.vision_model import VisionModel as VisionModel

__version__ = version("clsinterp")

# Name -> module, resolved on first use, so that `import clsinterp` imports no torch.
_LAZY = {"VisionModel": "clsinterp.vision_model", "lens": "clsinterp.views.lens"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'clsinterp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
