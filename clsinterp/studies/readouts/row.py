"""One token before a block: what the block makes of it, when it reads the tokens of an image.

A block treats its tokens alike but for attention, in which a token's own row needs the keys and values of the others and
nothing else of them. So the keys and values of a batch are taken once, and any number of fresh tokens is passed through that
row: 64 samples for an image cost 64 rows, not 64 blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.block_maps import by_head, layer_scale
from clsinterp.vision_model import VisionModel


@dataclass(frozen=True)
class Shown:
    """What a batch shows to a token that is put before a block.

    Attributes:
        keys, values: of every token, turned by rotary positions where the family has them.
        bias: what is added to the scores of the CLS token's row, by key (BEiT's relative positions); else None.
    """

    keys: Float[Tensor, "batch token head d_head"]
    values: Float[Tensor, "batch token head d_head"]
    bias: Float[Tensor, "one head token"] | None


@torch.no_grad()
def show(
    model: VisionModel, pixels: Float[Tensor, "batch channel height width"], blocks: Sequence[int]
) -> tuple[dict[int, Shown], Float[Tensor, "batch d_readout"]]:
    """What the batch shows before each of `blocks`, and its read-out, from one forward.

    Keys and values of all blocks are held at once: 2 numbers for each of the residual stream's.

    Raises:
        RequestError: attention of this family has no maps of its own for queries, keys and values.
    """
    cls = model.layout.index("cls")
    if not all(hasattr(model.blocks[0].attn._module, f"{x}_proj") for x in "qkv"):
        raise RequestError(
            f"attention of a {model.family.name} model has no q_proj, k_proj and v_proj; read-outs with tokens of their own "
            "need them."
        )
    with model.trace(pixels):
        raw: dict[int, tuple[Any, Any, Any, Any]] = {}
        for i in blocks:
            attn = model.blocks[i].attn
            args, kwargs = attn.inputs
            bias, rope = (
                kwargs.get("attention_mask", args[1] if len(args) > 1 else None),
                kwargs.get("position_embeddings"),
            )
            raw[i] = (bias, rope, attn.k_proj.output.clone(), attn.v_proj.output.clone())
        readout = model.readout.clone()
        nnsight.save(raw)
        nnsight.save(readout)
    found = {}
    for i, (bias, rope, k, v) in raw.items():
        k, v = by_head(k, model.n_heads), by_head(v, model.n_heads)
        if rope is not None:
            from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

            k = apply_rotary_pos_emb(k.transpose(1, 2), k.transpose(1, 2), *rope)[1].transpose(1, 2)
        found[i] = Shown(k, v, None if bias is None else bias[:, :, cls])
    return found, readout


def through(
    model: VisionModel, block: int, shown: Shown, tokens: Float[Tensor, "*samples batch d_model"], augment: bool = False
) -> Float[Tensor, "*samples batch d_model"]:
    """`tokens` after `block`, each put alone before it with the tokens of its image.

    Args:
        model: the model.
        block: its number.
        shown: from `show`.
        tokens: in place of the CLS token, or beside it.
        augment: the CLS token stays and is read too. In BEiT the new token then has the CLS token's relative positions.
    """
    module: Any = model.blocks[block]._module
    attn: Any = model.blocks[block].attn._module
    family, cls = model.family, model.layout.index("cls")
    assert isinstance(cls, int), "there is one CLS token"
    tokens = tokens.to(shown.keys)
    x = getattr(module, family.ln1)(tokens)
    q, k, v = (by_head(getattr(attn, f"{name}_proj")(x), model.n_heads) for name in "qkv")
    q = q * q.shape[-1] ** -0.5
    own = (q * k).sum(-1, keepdim=True)  # the token reads itself
    others = torch.einsum("...bhd,bthd->...bht", q, shown.keys)
    if shown.bias is not None:
        own, others = own + shown.bias[..., cls, None], others + shown.bias
    if not augment:
        others = others.clone()
        others[..., cls] = float("-inf")
    pattern = torch.cat([own, others], dim=-1).softmax(-1)
    z = pattern[..., :1] * v + torch.einsum("...bht,bthd->...bhd", pattern[..., 1:], shown.values)
    mid = tokens + getattr(attn, family.attn_out)(z.flatten(-2)) * layer_scale(model, block, "scale1")
    return mid + getattr(module, family.mlp)(getattr(module, family.ln2)(mid)) * layer_scale(model, block, "scale2")
