"""What runs a model: asked inside a trace, so that a server answers for itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import nnsight
import torch

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


def describe(model: Traced) -> dict[str, Any]:
    """Class, device, dtype, versions, and a fingerprint of the weights of `model` where it runs."""
    import transformers  # here: a module that loads its parts lazily does not survive as a global of a sent function

    parameter = next(model._module.parameters())
    return {
        "class": type(model._module).__name__,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "fingerprint": model.checkpoint.fingerprint(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "nnsight": nnsight.__version__,
        },
    }
