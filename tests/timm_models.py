"""Small random models of timm's ViT classes, made by timm itself, one for each thing that its options change."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models import filter_pretrained_cfg

CLASSES = 7
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
BARE = {"num_classes": 0}
# What is tested -> (architecture, its arguments beside SMALL).
MODELS = {
    "vit": ("vit_base_patch16_224", {}),
    "vit-gap": ("vit_base_patch16_224", {"global_pool": "avg", "class_token": False, "reg_tokens": 2}),
    "vit-avg-normed-first": ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    "vit-mean-of-all": ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True}),
    "deit3": ("deit3_small_patch16_224", {}),
    "dinov2-reg": ("vit_small_patch14_reg4_dinov2", {**BARE}),
    "clip": ("vit_base_patch16_clip_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "beit3": ("beit3_base_patch16_224", {}),
    "aimv2": ("aimv2_large_patch14_224", {**BARE}),
    "qk-norm": ("vit_base_patch16_224", {"qk_norm": True, "init_values": 0.5}),
    "no-positions": ("vit_base_patch16_224", {"pos_embed": "none", "global_pool": "", **BARE}),
    "no-last-norm": ("vit_base_patch16_224", {"final_norm": False, **BARE}),
    "distilled": ("deit_base_distilled_patch16_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "beit-shared": (
        "beit_base_patch16_224",
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"},
    ),
    "eva": ("eva_giant_patch14_224", {}),
    "eva02": ("eva02_small_patch14_224", {}),
    "eva02-apart": ("eva02_base_patch14_224", {}),
    "eva02-clip": ("eva02_base_patch16_clip_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {**BARE}),
    "rope-mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "rope-axial": ("vit_small_patch16_rope_224", {}),
    "pe": ("vit_pe_core_base_patch16_224", {}),
    "eva-qk-norm": ("vit_small_patch16_rope_224", {"attn_type": "eva", "qk_norm": True}),
}  # fmt: skip


def build(kind: str, seed: int = 0, **changes) -> torch.nn.Module:
    """A random model whose outputs differ enough between images that ranks mean something."""
    architecture, arguments = MODELS[kind]
    torch.manual_seed(seed)
    return drawn(timm.create_model(architecture, **SMALL | arguments | changes))


def drawn(model: torch.nn.Module) -> torch.nn.Module:
    """`model` with weights large enough to matter, biases and scales too."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "token" in name or "bias" in name:
                p.normal_(0, 0.3 if p.ndim == 2 else 0.2)
            elif "gamma" in name:
                p.uniform_(0.4, 1.0)
            else:
                p.add_(torch.empty_like(p).normal_(0, 0.1))
    return model.eval()


def write(folder: Path, model: torch.nn.Module, arguments: dict, **config) -> Path:
    """Save `model` as it is published on the hub: ``config.json`` in timm's form, and safetensors.

    Args:
        folder: made if it is not there.
        model: built by timm, which knows its architecture and its data config.
        arguments: what it was built with beside those of its architecture; published models have them as ``model_args``.
        **config: fields to add at the top or to replace there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cfg = filter_pretrained_cfg(dict(model.pretrained_cfg), remove_source=True, remove_null=True)
    published = {
        "architecture": cfg.pop("architecture"),
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "pretrained_cfg": cfg,
        "model_args": {name: value for name, value in arguments.items() if name != "num_classes"},
    }
    (folder / "config.json").write_text(json.dumps(published | config))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder
