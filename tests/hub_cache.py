"""A local hub cache that holds what we put there, so that a hub id is loaded as a user types it, without a network."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def add(cache: Path, repo: str, files: Path | Mapping[str, Any], commit: str = COMMIT) -> Path:
    """Lay `files` out in the cache as the hub's client does for `repo` at its main branch.

    Args:
        cache: the folder that ``HF_HUB_CACHE`` names, see `use`.
        repo: such as ``timm/vit_base_patch16_224.augreg_in21k_ft_in1k``.
        files: a folder to copy, or file name -> what is in it: bytes, text, or anything else as JSON.
        commit: the hash that ``main`` stands for.

    Returns:
        The snapshot's folder, to which more can be written.
    """
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    if isinstance(files, Path):
        shutil.copytree(files, snapshot, dirs_exist_ok=True)
        return snapshot
    snapshot.mkdir(exist_ok=True)
    for name, content in files.items():
        where = snapshot / name
        where.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            where.write_bytes(content)
        else:
            where.write_text(content if isinstance(content, str) else json.dumps(content))
    return snapshot


def use(cache: Path, monkeypatch: Any) -> Path:
    """Have this process take hub files from `cache`, offline; returns it."""
    import huggingface_hub.constants
    import huggingface_hub.file_download
    import transformers.utils.hub

    cache.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for module in (huggingface_hub.constants, huggingface_hub.file_download, transformers.utils.hub):
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache
