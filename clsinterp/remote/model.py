"""What makes a `VisionModel` remote: its traces go to a server, and nothing else pretends to run."""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import nnsight
import torch
from nnsight.modeling import huggingface
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor
from torch._guards import detect_fake_mode

from clsinterp.data.packed import pack
from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import resolve
from clsinterp.models.traced import Traced
from clsinterp.remote.server import Server
from clsinterp.remote.shipping import shipping

logger = logging.getLogger(__name__)


class Remote(Traced):
    """The remote half of `VisionModel`.

    Attributes:
        server: where traces run; None is here.
    """

    server: Server | None = None

    def trace(self, *inputs: Any, backend: Any = None, remote: Any = False, trace: bool = True, **kwargs: Any) -> Any:
        """Open a trace, see nnsight. That of a remote model runs on its server, as does any with ``remote=``."""
        remote = remote or self.server or False
        if not trace or backend is not None or not remote:
            return super().trace(*inputs, backend=backend, trace=trace, **kwargs)
        if inputs:
            inputs = (pack(self.pixels(inputs[0])), *inputs[1:])
        return super().trace(*inputs, remote=remote, **kwargs)

    def session(self, backend: Any = None, remote: Any = False, **kwargs: Any) -> Any:
        """Several traces as one request, see nnsight. That of a remote model runs on its server."""
        return super().session(backend, remote=remote or self.server or False, **kwargs)

    def interleave(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the model here.

        Raises:
            RequestError: its weights are on a server. Without this, shapes would be computed and taken for results.
        """
        if self.server is not None and detect_fake_mode() is None:
            raise RequestError(
                f"the weights of {self.checkpoint.source} are on {self.server.url}: it runs in model.trace(images) only."
            )
        return super().interleave(fn, *args, **kwargs)

    @property
    def device(self) -> torch.device:
        """Where values of the model are: for a remote one the CPU here, once they have come down."""
        return torch.device("cpu") if self.server is not None else next(self._module.parameters()).device

    @property
    def per_request(self) -> int | None:
        """How many images may go into one request; None is any number, or that none is needed."""
        return self.server.per_request if self.server is not None else None

    @cached_property
    def server_facts(self) -> dict[str, Any]:
        """What the server runs: class, device, dtype, versions, and a fingerprint of the weights. One small request."""
        pixels = blank(self, 1)
        with self.trace(pixels):
            facts = nnsight.save(describe(self))
        return facts

    def fingerprint(self) -> str:
        """A hash of every weight, by name; the same here and on a server that has the same weights."""
        return self.checkpoint.fingerprint() if self.server is None else self.server_facts["fingerprint"]

    # -- what nnsight asks ---------------------------------------------------------

    def _remote_backend(self, remote: Any, blocking: bool, job_id: str | None, verbose: bool) -> Any:
        if remote == "local":
            if self.server is not None:
                raise RequestError('remote="local" needs weights; this model was loaded without.')
            return super()._remote_backend(remote, blocking, job_id, verbose)
        server = Server.of(self.server if remote is True and self.server is not None else remote)
        assert server is not None  # nnsight asks only where remote is set
        from clsinterp.remote.backend import Backend  # brings the network clients in

        nnsight.register("clsinterp")  # its code goes along: a server need not have it
        return Backend(
            self.to_model_key(), server, self._remoteable_get_env(), blocking=blocking, job_id=job_id, verbose=verbose
        )

    def _remoteable_class(self) -> type:
        return TransformersModel

    def _remoteable_model_key(self) -> str:
        source = self.checkpoint.source
        if not source:
            raise RequestError("a loaded module has no name that a server could know; give a hub id or a folder.")
        self.repo_id = resolve(source)
        if self.repo_id not in huggingface._ID_CACHE:
            huggingface._ID_CACHE[self.repo_id] = _canonical(self.repo_id)
        return super()._remoteable_model_key()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if shipping.get():
            for name in ("server", "server_facts"):
                state.pop(name, None)
            if self.image_processor is not None:
                # Sent along, not the server's own: that one may be another backend, which resizes differently.
                self.image_processor.__dict__.pop("_persistent_id", None)
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        if shipping.get():
            return object.__new__, (Traced,), self.__getstate__()
        return super().__reduce_ex__(protocol)

    def _like(self, values: Tensor) -> Tensor:
        return values if self.server is not None else super()._like(values)


def describe(model: Any) -> dict[str, Any]:
    """Facts about `model` where it runs. Called inside a trace."""
    import transformers

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


def blank(model: Traced, n: int) -> Tensor:
    """`n` images of the size the checkpoint is made for, each of one grey: 0, 1, ..."""
    size = model.vision_config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    grey = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)
    return grey.expand(n, getattr(model.vision_config, "num_channels", 3), height, width)


def _canonical(where: str) -> str:
    """The hub's spelling of an id. Folders, and ids while the hub cannot be asked, stay as they are."""
    if Path(where).is_dir():
        return where
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(where).id
    except Exception as error:  # offline, gated, gone: the server decides whether it knows the id
        logger.info("%s: the hub was not asked for its spelling (%s)", where, error)
        return where
