"""What a row of the family table says: where things are in a model, and by what arithmetic it forms them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clsinterp.models.positions import embedded
from clsinterp.models.scores import dot_product

# The fields of a `Family` that are paths from the model's root.
PATHS = ("blocks", "embed", "patch_embed", "ln_final", "lens_norm", "ln_pre", "pooling")


@dataclass(frozen=True)
class Sizes:
    """How large a loaded model is; each library's loader reads it off in its own way.

    Attributes:
        n_layers: number of blocks.
        d_model: width of the residual stream.
        n_heads: attention heads per block.
        patch: rows and columns of pixels of a patch.
        image: rows and columns of pixels of the images it was made for.
        channels: of the images.
        prefix: token groups before the patches, in order, with how many tokens each has; groups of none are left out.
    """

    n_layers: int
    d_model: int
    n_heads: int
    patch: tuple[int, int]
    image: tuple[int, int]
    channels: int = 3
    prefix: tuple[tuple[str, int], ...] = (("cls", 1),)


@dataclass(frozen=True)
class Family:
    """How one family of vision transformers is laid out.

    Attributes:
        name: what tables and messages call it.
        library: whose modules these are: ``transformers``, ``timm`` or ``open_clip``.
        architectures: class names found in ``config.json`` that this row serves.
        hf_class: the class of the library that is loaded for them.
        blocks, embed: paths of the block list and of the module that gives the embeddings, positions added.
        attn, mlp, ln1, ln2: names inside a block.
        ln_final: path of the norm on the tokens after the last block; None where the read-out skips it (CLIP).
        lens_norm: path of the norm that the logit lens applies before the classifier, on tokens or after pooling
            (``fc_norm``); None where there is none.
        prefix: token groups before the patches, in order, each with its count or the config field that holds it.
        readouts: what the classifier reads, in order: a token group, or one of `clsinterp.models.readouts.POOLED`.
        heads: paths of the classifiers. One head reads the concatenated read-outs; several read one each and
            their logits are averaged; none means the checkpoint has no classifier and a local head is fitted.
        ln_pre: path of a norm between the embeddings and block 0 (CLIP).
        patch_embed: path of the patch embedding.
        qkv: names inside attention of the maps that make queries, keys and values: three, in the order they are called, or
            one whose output holds all of them side by side.
        attn_out: name of the output map inside attention; what enters it is z.
        scores: how attention scores are formed, see `clsinterp.models.scores`.
        positions: the position embeddings as added to the tokens, see `clsinterp.models.positions`.
        after_mixing: what a model does to the mixed values before its output map: (attention module, z (batch, token, head,
            d_head), positional arguments of the module) -> z; None: nothing.
        mlp_maps: names of an MLP's first (gate, if gated) and last linear map; None: one of the usual names.
        scale1, scale2: LayerScale vectors inside a block, after attention and after the MLP.
        pooling: path of a module whose output is the read-out ``map`` (attention pooling), (batch, d_model).
        may_miss: patterns of weights a checkpoint may lack, besides its heads.
        root: path, inside `hf_class`, of the backbone: what is left of it without a classifier; empty where it is all of it.
        backbone: the backbone's class.
        made_from: the class whose checkpoints are loaded, where `hf_class` is another that computes the same and fits the
            table; `weight_names` are then (pattern, replacement) for the names of its weights.
        when: config fields that must have these values for the row to apply.
        text: the classifier is made of class names by the checkpoint's text tower; the row is chosen where classes are named.
        any_size: positions are interpolated (or rotary), so images of any size fit.
    """

    name: str
    architectures: tuple[str, ...]
    hf_class: str
    blocks: str
    embed: str
    patch_embed: str
    ln_final: str | None
    lens_norm: str | None
    readouts: tuple[str, ...]
    library: str = "transformers"
    heads: tuple[str, ...] = ("classifier",)
    prefix: tuple[tuple[str, int | str], ...] = (("cls", 1),)
    attn: str = "attention"
    mlp: str = "mlp"
    ln1: str = "layernorm_before"
    ln2: str = "layernorm_after"
    ln_pre: str | None = None
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    attn_out: str = "o_proj"
    scores: Callable[..., Tensor] = dot_product
    positions: Callable[..., Tensor] = embedded
    after_mixing: Callable[..., Tensor] | None = None
    mlp_maps: tuple[str, str] | None = None
    scale1: str | None = None
    scale2: str | None = None
    pooling: str | None = None
    may_miss: tuple[str, ...] = ()
    root: str = ""
    backbone: str = ""
    made_from: str = ""
    weight_names: tuple[tuple[str, str], ...] = ()
    when: Mapping[str, Any] | None = None
    text: bool = False
    any_size: bool = False

    @property
    def averages_heads(self) -> bool:
        """Whether each read-out has a head of its own and the logits are averaged."""
        return len(self.heads) > 1

    @property
    def bare(self) -> Family:
        """The same row for the backbone alone, which has no classifier."""
        return replace(self, hf_class=self.backbone or self.hf_class, root="", heads=(), **self._moved(self.root, ""))

    def inside(self, path: str, heads: tuple[str, ...]) -> Family:
        """The same row for a model that has this one at `path`, and classifiers at `heads`."""
        return replace(self, heads=heads, **self._moved("", path))

    def _moved(self, old: str, new: str) -> dict[str, Any]:
        """The row's paths, from the model's root, with the prefix `old` made `new`."""
        paths = {name: getattr(self, name) for name in PATHS}
        before = f"{old}." if old else ""
        return {name: ".".join(filter(None, (new, path.removeprefix(before)))) for name, path in paths.items() if path}

    @property
    def has_cls(self) -> bool:
        """Whether the family has a CLS token at all."""
        return any(group == "cls" for group, _ in self.prefix)

    def misfit(self, size: tuple[int, int], sizes: Sizes) -> str | None:
        """Why a model of `sizes` can't take pictures of `size` (rows, columns of pixels); None: it can.

        The end of a sentence that begins with "pictures of".
        """
        rows, columns = size
        if not self.any_size:
            if size == sizes.image:
                return None
            return (
                f"{rows} x {columns} pixels, but this {self.name} checkpoint has positions for {sizes.image[0]} x "
                f"{sizes.image[1]} only (image_size in config.json)."
            )
        high, wide = sizes.patch
        if rows and columns and rows % high == 0 and columns % wide == 0:
            return None
        return f"{rows} x {columns} pixels, which patches of {high} x {wide} (patch_size in config.json) don't divide."

    @property
    def other_readouts(self) -> tuple[str, ...]:
        """The read-outs that can be turned off, leaving the CLS token's; empty without a CLS read-out."""
        if "cls" not in self.readouts:
            return ()
        return tuple(r for r in self.readouts if r != "cls")
