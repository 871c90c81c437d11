"""Rows of `transformers` 5: paths are module paths there."""

from __future__ import annotations

from typing import Any

from clsinterp.models.family import Family
from clsinterp.models.positions import aimv2
from clsinterp.models.scores import rotary_dinov3


def _classes(cls: str, *more: str) -> dict[str, Any]:
    """The fields that name classes: `cls` with a classifier, its backbone, and `more` that hold the backbone."""
    names = (f"{cls}ForImageClassification", f"{cls}Model", *(f"{cls}{name}" for name in more))
    return {"architectures": names, "hf_class": names[0], "backbone": names[1]}


def _vit(name: str, cls: str, root: str, *more: str, **changes: Any) -> Family:
    fields: dict[str, Any] = {
        **_classes(cls, *more),
        "root": root,
        "blocks": f"{root}.layers",
        "embed": f"{root}.embeddings",
        "patch_embed": f"{root}.embeddings.patch_embeddings",
        "ln_final": f"{root}.layernorm",
        "lens_norm": f"{root}.layernorm",
        "readouts": ("cls",),
        "may_miss": (r"(.*\.)?pooler\.dense\..*", r"(.*\.)?mask_token"),
    }
    return Family(name=name, **(fields | changes))


def _beit(name: str, cls: str, mean: bool, **changes: Any) -> Family:
    pooled: dict[str, Any] = {"readouts": ("patch_mean",), "ln_final": None, "lens_norm": "beit.pooler.layernorm"}
    lacking = {"may_miss": (r"(\w+\.)?layernorm\.(weight|bias)", r"(.*\.)?mask_token")}
    classes = _classes(cls, "ForMaskedImageModeling") | {
        "hf_class": "BeitForImageClassification",
        "backbone": "BeitModel",
    }
    return _vit(
        name,
        cls,
        "beit",
        **(
            {**classes, "scale1": "lambda_1", "scale2": "lambda_2", "when": {"use_mean_pooling": mean}}
            | (pooled if mean else lacking)
            | changes
        ),
    )


# transformers still has Data2Vec's blocks as BEiT's once were; put into BEiT's they compute the same.
_DATA2VEC: dict[str, Any] = {
    "made_from": "Data2VecVisionForImageClassification",
    "weight_names": (
        (r"^data2vec_vision\.", "beit."),
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.query\.", "attention.q_proj."),
        (r"attention\.attention\.key\.", "attention.k_proj."),
        (r"attention\.attention\.value\.", "attention.v_proj."),
        (r"attention\.attention\.relative_position_bias", "relative_position_bias"),
        (r"attention\.output\.dense\.", "attention.o_proj."),
        (r"intermediate\.dense\.", "mlp.fc1."),
        (r"(?<!attention\.)output\.dense\.", "mlp.fc2."),
    ),
}


def _dino(name: str, **changes: Any) -> Family:
    return Family(
        name=name,
        readouts=("cls", "patch_mean"),
        ln1="norm1",
        ln2="norm2",
        scale1="layer_scale1.lambda1",
        scale2="layer_scale2.lambda1",
        any_size=True,
        **changes,
    )


def _dinov2(name: str, cls: str, root: str, **changes: Any) -> Family:
    return _dino(
        name,
        **_classes(cls, "Backbone"),
        root=root,
        blocks=f"{root}.encoder.layer",
        embed=f"{root}.embeddings",
        patch_embed=f"{root}.embeddings.patch_embeddings",
        ln_final=f"{root}.layernorm",
        lens_norm=f"{root}.layernorm",
        may_miss=(r"(.*\.)?mask_token",),
        **changes,
    )


def _tower(name: str, root: str = "", **changes: Any) -> Family:
    """The vision tower of a model of images and text, at `root` in the class that is loaded."""
    at = f"{root}." if root else ""
    fields: dict[str, Any] = {
        "ln_final": None,
        "lens_norm": None,
        "readouts": ("patch_mean",),
        "attn": "self_attn",
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        "attn_out": "out_proj",
        "patch_embed": f"{at}embeddings.patch_embedding",
    }
    return Family(
        name=name,
        root=root,
        blocks=f"{at}encoder.layers",
        embed=f"{at}embeddings",
        **(fields | changes),
    )


def _contrastive(name: str, cls: str, *more: str, **changes: Any) -> Family:
    return _tower(
        name,
        "vision_model",
        architectures=tuple(f"{cls}{holder}" for holder in ("ForImageClassification", "Model", "VisionModel", *more)),
        hf_class=f"{cls}ForImageClassification",
        backbone=f"{cls}VisionModel",
        **changes,
    )


def _towers_only(name: str, cls: str, *more: str, **changes: Any) -> Family:
    """The same of a model that has no class with a classifier."""
    fields: dict[str, Any] = {
        "architectures": (f"{cls}VisionModel", *(f"{cls}{holder}" for holder in more)),
        "hf_class": f"{cls}VisionModel",
        "heads": (),
    }
    return _tower(name, **(fields | changes))


def _owl(cls: str) -> dict[str, Any]:
    return {
        "root": "vision_model",
        "backbone": f"{cls}VisionTransformer",
        "ln_pre": "vision_model.pre_layernorm",
    }


_POST = {"ln_final": "post_layernorm", "lens_norm": "post_layernorm"}
_BLIP: dict[str, Any] = {**_POST, "qkv": ("qkv",), "attn_out": "projection", "readouts": ("cls",)}

ROWS: tuple[Family, ...] = (
    _vit("vit", "ViT", "vit", "ForMaskedImageModeling"),
    _vit(
        "deit",
        "DeiT",
        "deit",
        architectures=("DeiTForImageClassificationWithTeacher",),
        hf_class="DeiTForImageClassificationWithTeacher",
        prefix=(("cls", 1), ("distill", 1)),
        readouts=("cls", "distill"),
        heads=("cls_classifier", "distillation_classifier"),
    ),
    _beit("beit", "Beit", False),
    _beit("beit-mean", "Beit", True),
    _dinov2("dinov2", "Dinov2", "dinov2"),
    _contrastive("clip", "CLIP", "VisionModelWithProjection", ln_pre="vision_model.pre_layrnorm"),
    # Rows that cost nothing more once the table exists.
    _dinov2(
        "dinov2-registers",
        "Dinov2WithRegisters",
        "dinov2_with_registers",
        prefix=(("cls", 1), ("registers", "num_register_tokens")),
    ),
    _dino(
        "dinov3",
        architectures=("DINOv3ViTModel", "DINOv3ViTBackbone"),
        hf_class="DINOv3ViTModel",
        heads=(),
        blocks="model.layer",
        embed="embeddings",
        patch_embed="embeddings.patch_embeddings",
        ln_final="norm",
        lens_norm="norm",
        prefix=(("cls", 1), ("registers", "num_register_tokens")),
        scores=rotary_dinov3,
        may_miss=(r"(.*\.)?mask_token",),
    ),
    _vit("deit-no-teacher", "DeiT", "deit", "ForMaskedImageModeling", prefix=(("cls", 1), ("distill", 1))),
    _vit(
        "vit-mae",
        "ViTMAE",
        "vit",
        architectures=("ViTMAEForPreTraining", "ViTMAEModel"),
        hf_class="ViTForImageClassification",
        backbone="ViTModel",
    ),
    _vit("vit-msn", "ViTMSN", "vit"),
    _vit("ijepa", "IJepa", "ijepa", prefix=(), readouts=("patch_mean",)),
    _vit(
        "pixio",
        "Pixio",
        "",
        architectures=("PixioModel", "PixioBackbone"),
        hf_class="PixioModel",
        backbone="",
        heads=(),
        blocks="layers",
        embed="embeddings",
        patch_embed="embeddings.patch_embeddings",
        ln_final="layernorm",
        lens_norm="layernorm",
        prefix=(("registers", "n_cls_tokens"),),
        readouts=("patch_mean",),
    ),
    _beit("data2vec-vision", "Data2VecVision", False, **_DATA2VEC),
    _beit("data2vec-vision-mean", "Data2VecVision", True, **_DATA2VEC),
    _contrastive(
        "siglip",
        "Siglip",
        prefix=(),
        ln_final="vision_model.post_layernorm",
        lens_norm="vision_model.post_layernorm",
    ),
    _contrastive("metaclip-2", "MetaClip2", "VisionModelWithProjection", ln_pre="vision_model.pre_layrnorm"),
    _towers_only("altclip", "AltCLIP", "Model", ln_pre="pre_layrnorm"),
    _towers_only("chinese-clip", "ChineseCLIP", "Model", ln_pre="pre_layrnorm"),
    _towers_only("clipseg", "CLIPSeg", "Model", "ForImageSegmentation", ln_pre="pre_layrnorm"),
    _towers_only("owlvit", "OwlViT", "Model", "ForObjectDetection", **_owl("OwlViT")),
    _towers_only("owlv2", "Owlv2", "Model", "ForObjectDetection", **_owl("Owlv2")),
    _towers_only("blip", "Blip", "Model", **_BLIP),
    _towers_only("blip-2", "Blip2", "Model", **_BLIP),
    _towers_only("instructblip", "InstructBlip", **_BLIP),
    _towers_only(
        "aimv2",
        "Aimv2",
        "Model",
        prefix=(),
        attn="attention",
        mlp="ffn",
        ln1="rms_norm1",
        ln2="rms_norm2",
        ln_final="rms_norm",
        lens_norm="rms_norm",
        patch_embed="embeddings.patch_embed",
        positions=aimv2,
    ),
)  # fmt: skip
