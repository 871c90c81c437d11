"""The family table against a loaded module: standard names for its paths, and proof that the paths are there."""

from typing import Any

from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models.family import Family, Sizes


def renames(family: Family) -> dict[str, str]:
    """Module path -> standard name, for nnsight."""
    names = {
        family.blocks: "blocks",
        family.embed: "embed",
        family.attn: "attn",
        family.mlp: "mlp",
        family.ln1: "ln1",
        family.ln2: "ln2",
    }
    optional = {family.ln_final or family.lens_norm: "ln_final", family.ln_pre: "ln_pre", family.pooling: "pooling"}
    names |= {path: alias for path, alias in optional.items() if path}
    names |= dict(zip(family.heads, ("head", "head_distill"), strict=False))
    return {path: alias for path, alias in names.items() if path != alias}


def verify(module: nn.Module, family: Family, sizes: Sizes) -> None:
    """Check that the family's row describes `module`: every path is there and of the right kind and size.

    Raises:
        RequestError: the first thing that does not fit, with what was expected.
    """

    def must(condition: bool, what: str) -> None:
        if not condition:
            raise RequestError(
                f"the family table does not fit this {type(module).__name__}: {what}. "
                f"Its modules may have moved between releases of {family.library}; see the tested versions in constraints.txt."
            )

    modules = dict(module.named_modules())
    must(
        isinstance(modules.get(family.blocks), (nn.ModuleList, nn.Sequential)),
        f"{family.blocks} is not a list of blocks",
    )
    blocks = modules[family.blocks]
    must(len(blocks) == sizes.n_layers, f"{len(blocks)} blocks, but the config says {sizes.n_layers}")
    for name in (family.attn, family.mlp, family.ln1, family.ln2):
        must(all(hasattr(block, name) for block in blocks), f"blocks have no {name}")
    for name in (*family.qkv, family.attn_out):
        must(all(hasattr(getattr(b, family.attn), name) for b in blocks), f"attention has no {name}")
    for path in (family.embed, family.patch_embed, family.ln_final, family.lens_norm, family.ln_pre, family.pooling):
        must(path is None or path in modules, f"no module at {path}")
    parts = 1 if family.averages_heads else len(family.readouts)
    for path in family.heads:
        head: Any = modules.get(path)
        must(isinstance(head, nn.Linear), f"{path} is not a linear classifier")
        must(
            head.in_features == parts * sizes.d_model,
            f"{path} reads {head.in_features} features, not {parts} x d_model",
        )
