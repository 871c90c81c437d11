"""What makes a `VisionModel` remote: its traces go to a server, and nothing else pretends to run."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import nnsight
import torch
from torch import Tensor

from clsinterp.data.packed import pack
from clsinterp.errors import RequestError
from clsinterp.models.source import resolve
from clsinterp.models.traced import Traced
from clsinterp.remote.facts import describe
from clsinterp.remote.server import Server
from clsinterp.remote.shipping import shipping
from clsinterp.remote.unstable import Sent, computes_shapes, forget_identity, server_settings

logger = logging.getLogger(__name__)


class Remote(Sent):
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
        if self.server is not None and not computes_shapes():
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

    def backend_for(self, remote: Any, **options: Any) -> Any:
        """What runs a trace with ``remote=``: this package's backend, or nnsight's own for ``"local"``."""
        if remote == "local":
            if self.server is not None:
                raise RequestError('remote="local" needs weights; this model was loaded without.')
            return super().backend_for(remote, **options)
        server = Server.of(self.server if remote is True and self.server is not None else remote)
        assert server is not None  # nnsight asks only where remote is set
        from clsinterp.remote.backend import Backend  # brings the network clients in

        nnsight.register("clsinterp")  # code of this package goes by value, see clsinterp.remote.travelling
        return Backend(self.to_model_key(), server, server_settings(self), **options)

    def hub_id(self) -> str:
        """The hub id or folder that a server knows the model by."""
        if not self.checkpoint.source:
            raise RequestError("a loaded module has no name that a server could know; give a hub id or a folder.")
        return resolve(self.checkpoint.source)

    def hub_spelling(self, hub_id: str) -> str:
        """The hub's own spelling of `hub_id`. Folders, and ids while the hub cannot be asked, stay as they are."""
        if Path(hub_id).is_dir():
            return hub_id
        from huggingface_hub import HfApi

        try:
            return HfApi().model_info(hub_id).id
        except Exception as error:  # offline, gated, gone: the server decides whether it knows the id
            logger.info("%s: the hub was not asked for its spelling (%s)", hub_id, error)
            return hub_id

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if shipping.get():
            for name in ("server", "server_facts"):
                state.pop(name, None)
            if self.image_processor is not None:
                # Sent along, not the server's own: that one may be another backend, which resizes differently.
                forget_identity(self.image_processor)
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        if shipping.get():
            return object.__new__, (Traced,), self.__getstate__()
        return super().__reduce_ex__(protocol)

    def _like(self, values: Tensor) -> Tensor:
        return values if self.server is not None else super()._like(values)


def blank(model: Traced, n: int) -> Tensor:
    """`n` images of the size the checkpoint is made for, each of one grey: 0, 1, ..."""
    grey = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)
    return grey.expand(n, model.sizes.channels, *model.sizes.image)
