"""Floating-point types and devices by name."""

import torch

from clsinterp.errors import RequestError


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype of that name; "auto" is float32."""
    if isinstance(name, torch.dtype):
        return name
    known = {"auto": torch.float32, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in known:
        raise RequestError(f"dtype {name!r} was given; one of {', '.join(known)} is expected.")
    return known[name]


def pick_device(name: str | torch.device) -> torch.device:
    """The torch device of that name; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, OverflowError, NotImplementedError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"device {name!r} is not available here: {first}") from error
    if device.type == "meta":
        raise RequestError(f"device {name!r} was given, which computes nothing; auto, cpu, cuda or mps is expected.")
    return device


def exact(device: torch.device) -> torch.device:
    """Where sums and probes of what `device` computes are formed in float64: there, or on the CPU for MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def worker_devices(name: str) -> list[str]:
    """Where workers of a run go: for "auto" every visible GPU if there are several, else the one device asked for."""
    if name == "auto" and torch.cuda.is_available() and torch.cuda.device_count() > 1:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [name]
