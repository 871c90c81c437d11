"""Classifiers that ship for checkpoints that don't: fitted here, on data that may not be shipped itself."""

from pathlib import Path

from clsinterp.models.source import ZOO


def shipped_head(source: str) -> Path | None:
    """The file of the head that ships for ``zoo/NAME``, see its card beside it; None where none does.

    Example:
        >>> shipped_head("zoo/dinov2-small").name, shipped_head("zoo/vit")
        ('head.safetensors', None)
    """
    path = ZOO / source.removeprefix("zoo/") / "head.safetensors"
    return path if source.startswith("zoo/") and path.is_file() else None
