"""Rows of `transformers` 5: paths are module paths there."""

from __future__ import annotations

from typing import Any

from clsinterp.models.family import Family
from clsinterp.models.scores import rotary_dinov3

NORM_OF_CLS_POOLING = r"beit\.layernorm\.(weight|bias)"


def _dinov2(name: str, cls: str, root: str, **changes: Any) -> Family:
    return Family(
        name=name,
        architectures=(f"{cls}ForImageClassification", f"{cls}Model"),
        hf_class=f"{cls}ForImageClassification",
        blocks=f"{root}.encoder.layer",
        embed=f"{root}.embeddings",
        patch_embed=f"{root}.embeddings.patch_embeddings",
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
        patch_embed=f"{root}.embeddings.patch_embeddings",
        **(paths | changes),
    )


def _contrastive(name: str, cls: str, **changes: Any) -> Family:
    return Family(
        name=name,
        architectures=(f"{cls}ForImageClassification", f"{cls}Model", f"{cls}VisionModel"),
        hf_class=f"{cls}ForImageClassification",
        blocks="vision_model.encoder.layers",
        embed="vision_model.embeddings",
        patch_embed="vision_model.embeddings.patch_embedding",
        readouts=("patch_mean",),
        attn="self_attn",
        ln1="layer_norm1",
        ln2="layer_norm2",
        attn_out="out_proj",
        **changes,
    )


_BEIT = ("BeitForImageClassification", "BeitModel", "BeitForMaskedImageModeling")

ROWS: tuple[Family, ...] = (
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
        patch_embed="embeddings.patch_embeddings",
        scores=rotary_dinov3,
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
