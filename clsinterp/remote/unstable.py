"""Names of nnsight and torch that may move between releases, as far as sending a trace needs them.

An upgrade is repaired here and in `clsinterp.models.unstable`; tests/test_unstable.py lists what a release has moved.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from nnsight import CONFIG
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.serialization import (
    DEFAULT_PROTOCOL,
    CustomCloudPickler,
    _fill,
    _load_function,
    reduce_block,
)
from nnsight.modeling import huggingface
from nnsight.modeling.transformers import TransformersModel
from nnsight.ndif import EnvComparison, get_local_env, get_remote_env, pull_env
from torch._guards import detect_fake_mode

from clsinterp.models.traced import Traced
from clsinterp.models.unstable import OutputView

if TYPE_CHECKING:
    from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
    from nnsight.schema.request import RequestModel
    from nnsight.schema.response import ResponseModel, Status

__all__ = [
    "DEFAULT_PROTOCOL", "RemoteBackend", "RemoteError", "RequestModel", "ResponseModel", "Sent", "SourcePickler", "Status",
    "at_host", "compare_versions", "computes_shapes", "configured_host", "configured_key", "forget_identity", "pull_env",
    "reduce_block", "server_settings",
]  # fmt: skip
# Imported when asked for: they bring the network clients in.
_NETWORK = {
    "RemoteBackend": "nnsight.intervention.backends.remote",
    "RemoteError": "nnsight.intervention.backends.remote",
    "RequestModel": "nnsight.schema.request",
    "ResponseModel": "nnsight.schema.response",
    "Status": "nnsight.schema.response",
}


def __getattr__(name: str) -> Any:
    if name not in _NETWORK:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_NETWORK[name]), name)


# -- the model ---------------------------------------------------------------------


class Sent(Traced):
    """What nnsight asks of a model whose traces go to a server, asked of public methods."""

    def backend_for(self, remote: Any, **options: Any) -> Any:
        """What runs a trace with ``remote=``; nnsight's own, which knows ``"local"``."""
        return super()._remote_backend(remote, **options)

    def hub_id(self) -> str:
        """The hub id or folder that a server knows the model by."""
        raise NotImplementedError

    def hub_spelling(self, hub_id: str) -> str:
        """The hub's own spelling of `hub_id`."""
        raise NotImplementedError

    def _remote_backend(self, remote: Any, blocking: bool, job_id: str | None, verbose: bool) -> Any:
        return self.backend_for(remote, blocking=blocking, job_id=job_id, verbose=verbose)

    def _remoteable_class(self) -> type:
        return TransformersModel

    def _remoteable_model_key(self) -> str:
        self.repo_id = self.hub_id()
        if self.repo_id not in huggingface._ID_CACHE:
            huggingface._ID_CACHE[self.repo_id] = self.hub_spelling(self.repo_id)
        return super()._remoteable_model_key()


def server_settings(model: Sent) -> dict[str, Any]:
    """nnsight's per-request settings of `model`."""
    return model._remoteable_get_env()


def forget_identity(part: Any) -> None:
    """Have `part` of a model, such as its image processor, travel instead of standing for the server's own."""
    part.__dict__.pop("_persistent_id", None)


def computes_shapes() -> bool:
    """Whether torch computes shapes instead of values, as nnsight does to find out what a module gives."""
    return detect_fake_mode() is not None


# -- how code travels ----------------------------------------------------------------


class SourcePickler(CustomCloudPickler):
    """nnsight's pickler, with a say in what a function is sent as."""

    def source_of(self, func: FunctionType) -> str | None:
        """Source to send for `func`; None leaves it to nnsight."""
        raise NotImplementedError

    def _dynamic_function_reduce(self, func: FunctionType) -> tuple[Any, ...]:
        source = self.source_of(func)
        if source is None:
            return super()._dynamic_function_reduce(func)
        args: Any = (source, func.__name__, func.__defaults__, func.__kwdefaults__, {}, "generated", 1)
        return _load_function, args, {}, None, None, _fill


def _reduce_eproperty(value: eproperty) -> tuple[Callable, tuple, dict[str, Any]]:
    # The token views are class attributes of this type, which pickle cannot take apart by itself; all of it is in __dict__.
    return property.__new__, (type(value),), value.__dict__


for kind in (eproperty, OutputView):
    copyreg.pickle(kind, _reduce_eproperty)

# -- nnsight's configuration -----------------------------------------------------------


def configured_host() -> str:
    """The URL that nnsight is configured for."""
    return CONFIG.API.HOST


def configured_key() -> str:
    """The API key that nnsight is configured with, or an empty string."""
    return CONFIG.API.APIKEY or ""


@contextmanager
def at_host(url: str) -> Iterator[None]:
    """nnsight's own questions go to the configured host; inside this they go to `url`."""
    before = CONFIG.API.HOST
    CONFIG.API.HOST = url
    try:
        yield
    finally:
        CONFIG.API.HOST = before


def compare_versions() -> EnvComparison:
    """Packages here and on the server that is asked now."""
    return EnvComparison(get_local_env(), get_remote_env(force_refresh=True))
