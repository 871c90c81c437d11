"""Rows of open_clip: paths are those of `clsinterp.models.open_clip_vision`, which holds the library's parameters.

What a vision tower pools and which parts it has is read off it, `clsinterp.models.load_open_clip.row_of`.
"""

from __future__ import annotations

from dataclasses import replace

from clsinterp.models.family import Family
from clsinterp.models.positions import one_table

OPEN_CLIP = Family(
    name="open-clip",
    library="open_clip",
    architectures=("VisionTransformer", "CLIP", "CustomTextCLIP"),
    hf_class="VisionTransformer",
    blocks="blocks",
    embed="embed",
    patch_embed="embed.conv1",
    ln_pre="ln_pre",
    ln_final="ln_post",
    lens_norm="ln_post",
    readouts=("cls",),
    heads=(),
    attn="attn",
    ln1="ln_1",
    ln2="ln_2",
    qkv=("in_proj",),
    attn_out="out_proj",
    positions=one_table,
    mlp_maps=("c_fc", "c_proj"),
)
OPEN_CLIP_TEXT = replace(OPEN_CLIP, name="open-clip-text", heads=("head",), text=True)
ROWS = (OPEN_CLIP, OPEN_CLIP_TEXT)
