"""Where vision transformers hold the label in their CLS token, and where their output depends on it."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsinterp.data.load import load_data
    from clsinterp.data.photos import sample_photos
    from clsinterp.data.sample import sample_images
    from clsinterp.errors import ClsinterpError, RequestError, RunError, TooEarly
    from clsinterp.hooks.cache import ActivationCache
    from clsinterp.probing.probes import fit_probes
    from clsinterp.runs.results import read_run
    from clsinterp.runs.run import run
    from clsinterp.sweeps.capture import capture
    from clsinterp.sweeps.fork import fork
    from clsinterp.sweeps.variants import variants
    from clsinterp.views.lens import lens
    from clsinterp.vision_model import VisionModel

__all__ = [
    "ActivationCache",
    "ClsinterpError",
    "RequestError",
    "RunError",
    "TooEarly",
    "VisionModel",
    "__version__",
    "capture",
    "fit_probes",
    "fork",
    "lens",
    "load_data",
    "read_run",
    "run",
    "sample_images",
    "sample_photos",
    "variants",
]
__version__ = version("clsinterp")

# Name -> module, resolved on first use, so that `import clsinterp` imports no torch. No folder or module at the root of
# the package has one of these names: importing it would put the module in the name's place.
_LAZY = {
    "VisionModel": "clsinterp.vision_model",
    "lens": "clsinterp.views.lens",
    "fork": "clsinterp.sweeps.fork",
    "capture": "clsinterp.sweeps.capture",
    "variants": "clsinterp.sweeps.variants",
    "run": "clsinterp.runs.run",
    "read_run": "clsinterp.runs.results",
    "load_data": "clsinterp.data.load",
    "fit_probes": "clsinterp.probing.probes",
    "sample_images": "clsinterp.data.sample",
    "sample_photos": "clsinterp.data.photos",
    "ActivationCache": "clsinterp.hooks.cache",
    "ClsinterpError": "clsinterp.errors",
    "RequestError": "clsinterp.errors",
    "RunError": "clsinterp.errors",
    "TooEarly": "clsinterp.errors",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'clsinterp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
