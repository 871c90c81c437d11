"""Rows of two-tower models with class names for a classifier: what CLIP's own image embedding reads.

The same checkpoints have rows in `clsinterp.models.rows.hf` as what their classification classes read.
"""

from __future__ import annotations

from typing import Any

from clsinterp.models.family import Family


def _text(name: str, cls: str, **changes: Any) -> Family:
    row: dict[str, Any] = {
        "name": name,
        "architectures": (cls,),
        "hf_class": cls,
        "blocks": "vision_model.encoder.layers",
        "embed": "vision_model.embeddings",
        "patch_embed": "vision_model.embeddings.patch_embedding",
        "ln_pre": "vision_model.pre_layrnorm",
        "ln_final": None,  # the norm comes after pooling: it reads the CLS token alone
        "lens_norm": "vision_model.post_layernorm",
        "readouts": ("cls",),
        "attn": "self_attn",
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        "attn_out": "out_proj",
        "text": True,
    }
    return Family(**(row | changes))


ROWS: tuple[Family, ...] = (
    _text("clip-text", "CLIPModel"),
    _text("metaclip2-text", "MetaClip2Model"),
    _text(
        "siglip-text",
        "SiglipModel",
        prefix=(),
        ln_pre=None,
        ln_final="vision_model.post_layernorm",
        readouts=("map",),
        pooling="vision_model.head",
    ),
)
