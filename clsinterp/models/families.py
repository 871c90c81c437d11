"""One row per Hugging Face family: where things are, which tokens come first, what the read-out reads.

What differs between families stands here and nowhere else. Paths are module paths in `transformers` 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clsinterp.errors import RequestError

NORM_OF_CLS_POOLING = r"beit\.layernorm\.(weight|bias)"


@dataclass(frozen=True)
class Family:
    """How one family of vision transformers is laid out.

    Attributes:
        name: what tables and messages call it.
        architectures: class names found in ``config.json`` that this row serves.
        hf_class: the `transformers` class that is loaded for them.
        blocks, embed: paths of the block list and of the embeddings.
        attn, mlp, ln1, ln2: names inside a block.
        ln_final: path of the LayerNorm on the tokens after the last block; None where the read-out skips it (CLIP).
        lens_norm: path of the norm that the logit lens applies before the classifier; None where there is none.
        prefix: token groups before the patches, in order, each with its count or the config field that holds it.
        readouts: what the classifier reads, in order: a token group, or ``patch_mean``.
        heads: paths of the classifiers. One head reads the concatenated read-outs; several read one each and
            their logits are averaged; none means the checkpoint has no classifier and a local head is fitted.
        ln_pre: path of a norm between the embeddings and block 0 (CLIP).
        patch_embed: name of the patch embedding inside the embeddings.
        attn_out: name of the output map inside attention.
        scale1, scale2: LayerScale vectors inside a block, after attention and after the MLP.
        may_miss: patterns of weights a checkpoint may lack, besides its heads.
        when: config fields that must have these values for the row to apply.
        text_and_vision: the config holds the vision part in ``vision_config``.
        any_size: positions are interpolated (or rotary), so images of any size fit.
    """

    name: str
    architectures: tuple[str, ...]
    hf_class: str
    blocks: str
    embed: str
    ln_final: str | None
    lens_norm: str | None
    readouts: tuple[str, ...]
    heads: tuple[str, ...] = ("classifier",)
    prefix: tuple[tuple[str, int | str], ...] = (("cls", 1),)
    attn: str = "attention"
    mlp: str = "mlp"
    ln1: str = "layernorm_before"
    ln2: str = "layernorm_after"
    ln_pre: str | None = None
    patch_embed: str = "patch_embeddings"
    attn_out: str = "o_proj"
    scale1: str | None = None
    scale2: str | None = None
    may_miss: tuple[str, ...] = ()
    when: Mapping[str, Any] | None = None
    text_and_vision: bool = False
    any_size: bool = False

    @property
    def averages_heads(self) -> bool:
        """Whether each read-out has a head of its own and the logits are averaged."""
        return len(self.heads) > 1

    @property
    def has_cls(self) -> bool:
        """Whether the family has a CLS token at all."""
        return any(group == "cls" for group, _ in self.prefix)

    @property
    def other_readouts(self) -> tuple[str, ...]:
        """The read-outs that can be turned off, leaving the CLS token's; empty without a CLS read-out."""
        if "cls" not in self.readouts:
            return ()
        return tuple(r for r in self.readouts if r != "cls")


def _dinov2(name: str, cls: str, root: str, **changes: Any) -> Family:
    return Family(
        name=name,
        architectures=(f"{cls}ForImageClassification", f"{cls}Model"),
        hf_class=f"{cls}ForImageClassification",
        blocks=f"{root}.encoder.layer",
        embed=f"{root}.embeddings",
        ln_final=f"{root}.layernorm",
        lens_norm=f"{root}.layernorm",
        readouts=("cls", "patch_mean"),
        ln1="norm1",
        ln2="norm2",
        scale1="layer_scale1.lambda1",
        scale2="layer_scale2.lambda1",
        any_size=True,
        **changes,
    )


def _vit(name: str, root: str, architectures: tuple[str, ...], hf_class: str, **changes: Any) -> Family:
    paths: dict[str, Any] = {
        "ln_final": f"{root}.layernorm",
        "lens_norm": f"{root}.layernorm",
        "readouts": ("cls",),
    }
    return Family(
        name=name,
        architectures=architectures,
        hf_class=hf_class,
        blocks=f"{root}.layers",
        embed=f"{root}.embeddings",
        **(paths | changes),
    )


def _contrastive(name: str, cls: str, **changes: Any) -> Family:
    return Family(
        name=name,
        architectures=(f"{cls}ForImageClassification", f"{cls}Model", f"{cls}VisionModel"),
        hf_class=f"{cls}ForImageClassification",
        blocks="vision_model.encoder.layers",
        embed="vision_model.embeddings",
        readouts=("patch_mean",),
        attn="self_attn",
        ln1="layer_norm1",
        ln2="layer_norm2",
        patch_embed="patch_embedding",
        attn_out="out_proj",
        text_and_vision=True,
        **changes,
    )


_BEIT = ("BeitForImageClassification", "BeitModel", "BeitForMaskedImageModeling")

FAMILIES: tuple[Family, ...] = (
    _vit("vit", "vit", ("ViTForImageClassification", "ViTModel"), "ViTForImageClassification"),
    _vit(
        "deit",
        "deit",
        ("DeiTForImageClassificationWithTeacher",),
        "DeiTForImageClassificationWithTeacher",
        prefix=(("cls", 1), ("distill", 1)),
        readouts=("cls", "distill"),
        heads=("cls_classifier", "distillation_classifier"),
    ),
    _vit(
        "beit",
        "beit",
        _BEIT,
        "BeitForImageClassification",
        when={"use_mean_pooling": False},
        scale1="lambda_1",
        scale2="lambda_2",
        may_miss=(NORM_OF_CLS_POOLING,),
    ),
    _vit(
        "beit-mean",
        "beit",
        _BEIT,
        "BeitForImageClassification",
        when={"use_mean_pooling": True},
        scale1="lambda_1",
        scale2="lambda_2",
        readouts=("patch_mean",),
        ln_final=None,
        lens_norm="beit.pooler.layernorm",
    ),
    _dinov2("dinov2", "Dinov2", "dinov2"),
    _contrastive(
        "clip", "CLIP", ln_pre="vision_model.pre_layrnorm", ln_final=None, lens_norm=None
    ),
    # Rows that cost nothing more once the table exists.
    _dinov2(
        "dinov2-registers",
        "Dinov2WithRegisters",
        "dinov2_with_registers",
        prefix=(("cls", 1), ("registers", "num_register_tokens")),
    ),
    _vit(
        "deit-no-teacher",
        "deit",
        ("DeiTForImageClassification", "DeiTModel"),
        "DeiTForImageClassification",
        prefix=(("cls", 1), ("distill", 1)),
    ),
    _vit("vit-mae", "vit", ("ViTMAEForPreTraining", "ViTMAEModel"), "ViTForImageClassification"),
    _contrastive(
        "siglip",
        "Siglip",
        prefix=(),
        ln_final="vision_model.post_layernorm",
        lens_norm="vision_model.post_layernorm",
    ),
    Family(
        name="dinov3",
        architectures=("DINOv3ViTModel",),
        hf_class="DINOv3ViTModel",
        blocks="model.layer",
        embed="embeddings",
        ln_final="norm",
        lens_norm="norm",
        prefix=(("cls", 1), ("registers", "num_register_tokens")),
        readouts=("cls", "patch_mean"),
        heads=(),
        ln1="norm1",
        ln2="norm2",
        scale1="layer_scale1.lambda1",
        scale2="layer_scale2.lambda1",
        any_size=True,
    ),
)  # fmt: skip


def find_family(architectures: Iterable[str] | None, config: Any) -> Family:
    """The row for a checkpoint whose ``config.json`` names `architectures`.

    Raises:
        RequestError: no row serves them; the message lists what is supported.
    """
    names = list(architectures or ())
    for row in FAMILIES:
        if set(names) & set(row.architectures) and all(
            getattr(config, key, None) == value for key, value in (row.when or {}).items()
        ):
            return row
    known = ", ".join(dict.fromkeys(a for row in FAMILIES for a in row.architectures))
    raise RequestError(
        f"architecture {', '.join(names) or '(none named in config.json)'} is not in the family table. "
        f"Supported: {known}."
    )
