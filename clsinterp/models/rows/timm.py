"""Rows of timm 1: one for each class. What else differs is options of a class, which `row_of` reads off a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from clsinterp.models import timm_parts
from clsinterp.models.family import Family, Sizes
from clsinterp.models.readouts import MAP


def _row(name: str, cls: str, **changes: Any) -> Family:
    paths: dict[str, Any] = {"ln_final": "norm", "lens_norm": "norm", "embed": "pos_drop"}
    reads: dict[str, Any] = {"readouts": ("cls",), "heads": ("head",)}
    return Family(
        name=name,
        library="timm",
        architectures=(cls,),
        hf_class=cls,
        blocks="blocks",
        patch_embed="patch_embed.proj",
        attn="attn",
        ln1="norm1",
        ln2="norm2",
        qkv=("qkv",),
        attn_out="proj",
        scores=timm_parts.scores,
        after_mixing=timm_parts.after_mixing,
        positions=timm_parts.positions,
        **(paths | reads | changes),
    )


ROWS: tuple[Family, ...] = (
    _row("timm-vit", "VisionTransformer", embed="patch_drop", any_size=True),
    _row(
        "timm-vit-distilled",
        "VisionTransformerDistilled",
        embed="patch_drop",
        prefix=(("cls", 1), ("distill", 1)),
        readouts=("cls", "distill"),
        heads=("head", "head_dist"),
        any_size=True,
    ),
    _row("timm-beit", "Beit"),
    _row("timm-eva", "Eva", any_size=True),
)

OTHER_CLASSES = {
    "NaFlexVit": "it takes patches with coordinates, not images (NaFlexVit)",
    "VisionTransformerRelPos": "its attention adds a bias that a module of its own computes (VisionTransformerRelPos)",
    "VisionTransformerSAM": "its tokens stay a grid, and most blocks attend within windows (VisionTransformerSAM)",
}
# Blocks that are not of the form x + attention(norm(x)), then x + mlp(norm(x)).
OTHER_BLOCKS = {
    "ResPostBlock": "its blocks normalise after attention and MLP, not before",
    "EvaBlockPostNorm": "its blocks normalise after attention and MLP, not before",
    "ParallelScalingBlock": "attention and MLP of its blocks stand side by side, with nothing between them",
    "DiffParallelScalingBlock": "attention and MLP of its blocks stand side by side, with nothing between them",
    "ParallelThingsBlock": "its blocks have several attentions and MLPs side by side",
}
BLOCKS = ("Block", "EvaBlock")
ATTENTIONS = ("Attention", "AttentionRope", "EvaAttention")
NORMS = ("LayerNorm", "LayerNormFp32", "RmsNorm", "RmsNormFp32")
POOLS = ("token", "avg", "map", "")
PAIRS = {"SwiGLU": ("fc1_g", "fc2")}  # first and last linear map of an MLP that has not fc1 and fc2


def misfit(module: Any) -> str | None:
    """Why no row serves a timm model, as the end of a sentence; None where one does."""
    cls = type(module).__name__
    if cls not in {row.hf_class for row in ROWS}:
        return OTHER_CLASSES.get(cls, f"{cls} is none of {', '.join(row.hf_class for row in ROWS)}")
    for test in (_of_blocks, _of_attention, _of_pooling, _of_norms):
        if reason := test(module):
            return reason
    return None


def _of_blocks(module: Any) -> str | None:
    kinds = {type(block).__name__ for block in module.blocks}
    if other := sorted(kinds - set(BLOCKS)):
        return OTHER_BLOCKS.get(other[0], f"its blocks are {other[0]}s, which no row describes")
    return None


def _of_attention(module: Any) -> str | None:
    attentions = [block.attn for block in module.blocks]
    if other := sorted({type(attn).__name__ for attn in attentions} - set(ATTENTIONS)):
        if other == ["DiffAttention"]:
            return "a pattern of its attention is the difference of two (differential attention)"
        return f"its attention is {other[0]}, which no row describes"
    if any(getattr(attn, "num_kv_heads", attn.num_heads) != attn.num_heads for attn in attentions):
        return "its queries have more heads than its keys and values (grouped-query attention)"
    return None


def _of_pooling(module: Any) -> str | None:
    if module.global_pool not in POOLS:
        return f"its pooling {module.global_pool!r} is no mean of tokens, token or attention pooling"
    if not module.global_pool and _heads(module, ("head",)):
        return "its classifier reads every token, and gives no answer for the image"
    return None


def _of_norms(module: Any) -> str | None:
    last = [norm for norm in (module.norm, getattr(module, "fc_norm", None)) if _there(norm)]
    if len(last) > 1:
        return "it normalises both before and after pooling"
    inside = [n for block in module.blocks for n in (block.norm1, block.norm2)]
    if other := sorted({type(norm).__name__ for norm in (*last, *inside)} - set(NORMS)):
        return f"its norm is {other[0]}, whose arithmetic no row describes"
    return None


def _there(part: Any) -> bool:
    """Whether an option of timm is on: where it is off, there is nothing or a module that does nothing."""
    return part is not None and not isinstance(part, nn.Identity)


def _heads(module: nn.Module, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path for path in paths if _there(module.get_submodule(path)))


def row_of(module: Any) -> Family:
    """The row of a timm model for which there is no `misfit`, with the options it was made with."""
    row = next(row for row in ROWS if row.hf_class == type(module).__name__)
    block, plain = module.blocks[0], has_plain_patches(module)
    dynamic = bool(getattr(module, "dynamic_img_size", False))
    norm = next((path for path in ("norm", "fc_norm") if _there(getattr(module, path, None))), None)
    pooled, pooling = _readouts(module, row), None
    if pooled == (MAP,):
        pooling = "fc_norm" if norm == "fc_norm" else "attn_pool"
    return replace(
        row,
        patch_embed=row.patch_embed if plain else "patch_embed",
        ln_final="norm" if norm == "norm" else None,
        lens_norm=norm,
        ln_pre="norm_pre" if _there(getattr(module, "norm_pre", None)) else None,
        prefix=prefix_of(module),
        readouts=pooled,
        pooling=pooling,
        heads=_heads(module, row.heads),
        qkv=("qkv",) if block.attn.qkv is not None else ("q_proj", "k_proj", "v_proj"),
        mlp_maps=PAIRS.get(type(block.mlp).__name__, ("fc1", "fc2")),
        scale1=_scale(block, "ls1", "gamma_1"),
        scale2=_scale(block, "ls2", "gamma_2"),
        any_size=dynamic,
    )


def has_plain_patches(module: Any) -> bool:
    """Whether patches are the outputs of one convolution, which can be tiled over images of any size."""
    return type(module.patch_embed).__name__ == "PatchEmbed" and not _there(module.patch_embed.norm)


def _readouts(module: Any, row: Family) -> tuple[str, ...]:
    if len(row.readouts) > 1:  # two heads, a token each
        return row.readouts
    mean = "token_mean" if getattr(module, "pool_include_prefix", False) else "patch_mean"
    unpooled = "cls" if module.cls_token is not None else mean
    return ({"token": "cls", "avg": mean, "map": MAP, "": unpooled}[module.global_pool],)


def _scale(block: Any, as_module: str, as_vector: str) -> str | None:
    """Where the LayerScale vector is, whichever way the block holds it; None without."""
    if _there(getattr(block, as_module, None)):
        return f"{as_module}.gamma"
    return as_vector if getattr(block, as_vector, None) is not None else None


def prefix_of(module: Any) -> tuple[tuple[str, int], ...]:
    """Token groups before the patches, with how many tokens each has."""
    tokens = {"cls": "cls_token", "distill": "dist_token", "registers": "reg_token"}
    found = ((group, getattr(module, name, None)) for group, name in tokens.items())
    return tuple((group, token.shape[1]) for group, token in found if token is not None)


def sizes_of(module: Any, image: tuple[int, int]) -> Sizes:
    """The sizes of a timm model made for images of `image` rows and columns of pixels."""
    patch: Callable[..., Any] = module.patch_embed.feat_ratio
    return Sizes(
        n_layers=len(module.blocks),
        d_model=module.embed_dim,
        n_heads=module.blocks[0].attn.num_heads,
        patch=tuple(patch(as_scalar=False)),
        image=image,
        channels=module.in_chans,
        prefix=prefix_of(module),
    )
