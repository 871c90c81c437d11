"""What a source (hub id, folder, ``zoo/NAME``) names, and whether it is there: asked before anything heavy is imported."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clsinterp.data.hub import alike, reachable
from clsinterp.errors import RequestError
from clsinterp.models.wheels import SOURCES, fetched

ZOO = Path(__file__).parents[1] / "zoo"
PUBLISHED = Path(__file__).parents[1] / "figures/published_curves.json"  # names the five checkpoints of the note
CONFIGS = ("config.json", "open_clip_config.json")


def zoo_names() -> list[str]:
    """Checkpoints that ship with the package."""
    return sorted(p.parent.name for p in ZOO.glob("*/config.json"))


def resolve(source: str) -> str:
    """The folder or hub id that `source` names.

    Raises:
        RequestError: an unknown zoo name, one that was not fetched yet, or a folder without ``config.json``.
    """
    if source.startswith("zoo/") and not Path(source).exists():
        name = source.removeprefix("zoo/")
        if name in SOURCES:
            if folder := fetched(name):
                return str(folder)
            raise RequestError(
                f"{source} does not ship with the package and was not fetched yet; run clsinterp zoo fetch {name} "
                f"(once; {SOURCES[name].megabytes} MB)."
            )
        if name not in zoo_names():
            raise RequestError(
                f"{source} is not in the zoo, which has: {', '.join([*zoo_names(), *SOURCES])}.{near(source)}"
            )
        return str(ZOO / name)
    here = os.path.expanduser(source)  # pathlib raises for a user who is not there, and for a name no file can have
    if os.path.isdir(here):
        if not _is_checkpoint(Path(here)):
            raise RequestError(
                f"{source} is a folder without config.json; a checkpoint folder as written by save_pretrained is expected."
            )
        return str(Path(here))
    if os.path.exists(here) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise RequestError(
            f"{source} is neither a checkpoint folder nor a hub id such as google/vit-base-patch16-224.{near(source)}"
        )
    return source


def found(source: str) -> str:
    """`resolve`, for a source that can be had: a hub id is in the cache, or the hub can be asked for it.

    Raises:
        RequestError: as `resolve`, or an id that is not in the cache while the hub cannot be asked.
    """
    from huggingface_hub import constants

    where = resolve(source)
    if os.path.isdir(where) or os.path.isdir(os.path.join(constants.HF_HUB_CACHE, _cached_as(where))):
        return where
    if constants.HF_HUB_OFFLINE or not reachable():
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise RequestError(
            f"there is no checkpoint folder {source}, no model of that id is in the hub's cache, and {why}.{near(source)}"
        )
    return where


def near(source: str) -> str:
    """A sentence that names what is called like `source`, beside it, in the cache or known here; empty if nothing is."""
    from huggingface_hub import constants

    path = Path(os.path.expanduser(source))
    beside = {p.name: str(path.with_name(p.name)) for p in _inside(path.parent) if _is_checkpoint(p)}
    ids = [p.name.removeprefix("models--").replace("--", "/") for p in _inside(Path(constants.HF_HUB_CACHE), "models")]
    ids += [
        *(f"zoo/{name}" for name in [*zoo_names(), *SOURCES]),
        *json.loads(PUBLISHED.read_text())["checkpoints"].values(),
    ]
    known = {name: one for one in ids for name in (one, one.rpartition("/")[2])}
    return alike(source, known) or alike(path.name, {**known, **beside})


def _cached_as(hub_id: str) -> str:
    return f"models--{hub_id.replace('/', '--')}"


def _inside(folder: Path, begins: str = "") -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.name.startswith(begins) and p.is_dir()]
    except (OSError, ValueError):
        return []


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in CONFIGS)
