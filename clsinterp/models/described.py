"""What a checkpoint was taken for, in a line, and what the family table holds, as rows."""

from math import prod

from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.families import FAMILIES

COLUMNS = ("family", "library", "classes", "tokens before the patches", "read-outs", "head", "image sizes", "commands")


def describe(checkpoint: Checkpoint) -> str:
    """Family, layers, width, tokens, read-outs and where the head is from, in one line."""
    family, sizes = checkpoint.family, checkpoint.sizes
    grid = [side // patch for side, patch in zip(sizes.image, sizes.patch, strict=True)]
    groups = [f"{name} {n}" if n > 1 else name for name, n in sizes.prefix]
    tokens = " + ".join([*groups, f"{prod(grid)} patches"])
    n_classes = len(checkpoint.class_names or ())
    head = checkpoint.head + (f" ({n_classes} classes)" if n_classes else "")
    name = (
        checkpoint.source
        if 0 < len(checkpoint.source) <= 40
        else f"..{checkpoint.source[-38:]}"
        if checkpoint.source
        else ""
    )
    return (
        f"VisionModel({name + ': ' if name else ''}{family.name} of {family.library}, {sizes.n_layers} layers, "
        f"width {sizes.d_model}, {tokens}, reads {' + '.join(family.readouts)}, head {head})"
    )


def table() -> list[tuple[str, ...]]:
    """A row for each family, its cells as in `COLUMNS`."""
    return [
        (
            row.name,
            row.library,
            ", ".join(row.architectures),
            ", ".join(f"{group} ({n})" if isinstance(n, str) else group for group, n in row.prefix) or "none",
            " + ".join(row.readouts),
            "class names"
            if row.text
            else {0: "fitted", 1: "own or fitted"}.get(len(row.heads), "own, one for each read-out, or fitted"),
            "any" if row.any_size else "its own",
            "all" if row.has_cls else "all but run, compare and note: no CLS token",
        )
        for row in FAMILIES
    ]
