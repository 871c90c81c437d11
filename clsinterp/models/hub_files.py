"""Single files of a checkpoint, from a folder or from the hub's cache, where no `from_pretrained` looks after them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.unstable import cached
from clsinterp.shapes import misfit

SAFE, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def hub_file(where: str, name: str, source: str, revision: str | None = None) -> Path:
    """Where the file `name` of a checkpoint lies on this machine, downloaded if need be.

    Args:
        where: a folder or a hub id.
        name: of the file.
        source: what messages call the checkpoint.
        revision: branch, tag or commit on the hub.

    Raises:
        RequestError: there is none, or the hub cannot be asked.
    """
    found = _look(where, name, source, revision)
    if found is None:
        here = "" if Path(where).is_dir() else " (or it is not in the hub's cache, and the hub cannot be asked)"
        raise RequestError(f"{source} has no {name}{here}.")
    return found


def _look(where: str, name: str, source: str, revision: str | None) -> Path | None:
    """`hub_file`, but None where the checkpoint has no such file."""
    if Path(where).is_dir():
        return path if (path := Path(where) / name).is_file() else None
    try:
        found = cached(where, name, revision)
    except Exception as error:  # gated, gone, offline: the hub raises a dozen kinds
        raise RequestError(f"cannot load {source}: {(str(error).strip().splitlines() or ['?'])[0]}") from error
    return None if found is None else Path(found)


def commit_in(folder: Path, where: str) -> str | None:
    """The commit that a snapshot's `folder` in the hub's cache is of; None where `where` is a folder itself."""
    return None if Path(where).is_dir() or folder.parent.name != "snapshots" else folder.name


def read_weights(
    where: str, source: str, revision: str | None, allow_pickle: bool = False, also: Iterable[str] = ()
) -> dict[str, Tensor]:
    """All weights of a checkpoint by name, from its safetensors: one file, or the parts that its index lists.

    Args:
        where, source, revision: as for `hub_file`.
        allow_pickle: also accept ``pytorch_model.bin``.
        also: other names that the safetensors may have.

    Raises:
        RequestError: no such file, or one that cannot be read.
    """
    for name in (SAFE, *also):
        if path := _look(where, name, source, revision):
            return _read(path, source)
    if path := _look(where, INDEX, source, revision):
        return {
            name: value
            for part in _parts(path, source)
            for name, value in _read(hub_file(where, part, source, revision), source).items()
        }
    if allow_pickle and (path := _look(where, PICKLED, source, revision)):
        return torch.load(path, map_location="cpu", weights_only=True)
    raise RequestError(
        f"{source} has no usable safetensors weights ({SAFE}). "
        "If it ships only pickled weights and you trust them, pass allow_pickle=True."
    )


def shapes_of(where: str, source: str, revision: str | None, also: Iterable[str] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a checkpoint by name, from the headers of its safetensors; no value is read.

    Args:
        where, source, revision, also: as for `read_weights`.

    Returns:
        Nothing where there are no safetensors, or none that can be read: loading them says so.

    Raises:
        RequestError: the hub cannot be asked.
    """
    whole = next((path for name in (SAFE, *also) if (path := _look(where, name, source, revision))), None)
    paths = [] if whole is None else [whole]
    if whole is None and (index := _look(where, INDEX, source, revision)):
        paths = [hub_file(where, part, source, revision) for part in _parts(index, source)]
    try:
        return {name: shape for path in paths for name, shape in _header(path)}
    except (OSError, SafetensorError):
        return {}


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            yield name, tuple(file.get_slice(name).get_shape())


def _parts(index: Path, source: str) -> list[str]:
    """The files that an index of weights lists."""
    try:
        facts = json.loads(index.read_text())
    except ValueError:
        facts = None
    if wrong := misfit(facts, {"weight_map": dict[str, str]}, index.name):
        raise RequestError(f"cannot load {source}: {wrong}; an index of the files that hold each weight is expected.")
    return sorted(set(facts["weight_map"].values()))


def _read(path: Path, source: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # cut off, or no safetensors at all
        raise RequestError(f"cannot read the weights of {source} in {path.name}: {error}") from error
