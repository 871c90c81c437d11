"""What a model of open_clip says of itself: its row and sizes, its image transform, its towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clsinterp.errors import RequestError
from clsinterp.models.config_check import MEND, said, shown
from clsinterp.models.family import Family, Sizes
from clsinterp.models.text_towers import Encode, refuse_long


class Processor:
    """open_clip's own transform of images, called as the image processors of `transformers` are.

    Args:
        config: ``preprocess_cfg``: size, mean, std, interpolation, resize mode.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        try:
            chosen = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), config))
            self.transform = image_transform_v2(chosen, is_train=False)
        except (AssertionError, TypeError, ValueError, KeyError) as error:
            raise RequestError(
                f"open_clip can't make an image transform of preprocess_cfg {shown(config)}: {said(error)}. {MEND}"
            ) from error
        self.image_mean, self.image_std = list(chosen.mean), list(chosen.std)

    def __call__(self, images: Sequence[Any], return_tensors: str = "pt") -> dict[str, Tensor]:
        """Pixels of RGB `images`."""
        return {"pixel_values": torch.stack([self.transform(image) for image in images])}


class Untouched(nn.Module):
    """open_clip's own vision tower, with torch's fused attention kernel off, and what is put on its output.

    That kernel rounds differently from the attention that open_clip trains with, and gives no queries, keys or values.
    """

    def __init__(self, visual: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.visual, self.head = visual, head

    def forward(self, pixels: Tensor) -> Tensor:
        """What `head` makes of the tower's output."""
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return self.head(self.visual(pixels))
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


def row_of(visual: Any, row: Family) -> Family:
    """`row` as this vision tower is built: what it pools, whether it has LayerScale and a norm before the blocks."""
    scaled = not isinstance(visual.transformer.resblocks[0].ls_1, nn.Identity)
    mean = visual.pool_type == "avg"
    return replace(
        row,
        name=row.name.replace("open-clip", "open-clip-mean") if mean else row.name,
        readouts=("patch_mean",) if mean else ("cls",),
        ln_pre=None if isinstance(visual.ln_pre, nn.Identity) else row.ln_pre,
        ln_final=None if visual.final_ln_after_pool else row.ln_final,
        scale1="ls_1.gamma" if scaled else None,
        scale2="ls_2.gamma" if scaled else None,
    )


def sizes_of(visual: Any) -> Sizes:
    """How large an open_clip ``VisionTransformer`` is."""
    blocks = visual.transformer.resblocks
    return Sizes(
        n_layers=len(blocks),
        d_model=visual.positional_embedding.shape[1],
        n_heads=blocks[0].attn.num_heads,
        patch=tuple(visual.patch_size),
        image=tuple(visual.image_size),
    )


def encoder(model: Any, tokenizer: Any) -> Encode:
    """The text tower of an open_clip model."""
    device = next(model.parameters()).device

    def encode(texts: list[str]) -> Tensor:
        refuse_long(texts, lengths(tokenizer, texts, model.context_length), model.context_length)
        return model.encode_text(tokenizer(texts).to(device))

    return encode


def lengths(tokenizer: Any, texts: list[str], room: int) -> list[int]:
    """How many tokens each text has; open_clip's tokenizers cut what is longer than they are told, and say nothing."""
    ids = tokenizer(texts, context_length=4 * room)
    padding = (ids == ids[:, -1:]).flip(1).int().cumprod(1).sum(1)
    return (ids.shape[1] - padding).tolist()


def projection_of(visual: Any) -> Tensor | None:
    """The one linear map (d_embed, d_readout) from a timm tower's output to the image embedding; None: they are the same.

    Raises:
        RequestError: more than a linear map, or one inside the timm model.
    """
    if visual.trunk.num_classes:
        raise RequestError(
            "the image projection of this open_clip model is its timm model's classifier, which no row says."
        )
    parts = [part for part in visual.head if not isinstance(part, nn.Dropout)]
    if not parts:
        return None
    if len(parts) > 1 or not isinstance(parts[0], nn.Linear) or parts[0].bias is not None:
        raise RequestError(
            "the image projection of this open_clip model is more than one linear map, which no head can hold."
        )
    return parts[0].weight


def refuse_unknown(visual: Any) -> None:
    """Refuse a vision tower that `OpenClipVision` does not spell out.

    Raises:
        RequestError: ResNets, timm towers, attention pooling, and blocks with norms inside attention.
    """
    name = type(visual).__name__
    if name != "VisionTransformer":
        raise RequestError(
            f"a vision tower of open_clip's class {name} is not in the family table; VisionTransformer and timm towers are."
        )
    if visual.attn_pool is not None:
        raise RequestError(
            "this open_clip vision tower pools by attention (CoCa); only class token and mean are known."
        )
    if not isinstance(visual.transformer.resblocks[0].attn, nn.MultiheadAttention):
        raise RequestError("the blocks of this open_clip vision tower have norms inside attention, which no row says.")
