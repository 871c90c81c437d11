"""Blocks that take a grown batch a piece at a time, so that what they compute on the way stays in the processor's cache.

On a CPU a block of a small model is bound by memory once its hidden layer outgrows the cache: at width 64, 1,664 images in
one piece cost 1.5 times as much per image as 20 at a time. The pieces are calls of the same module on fewer rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from clsinterp.model import VisionModel

TOKENS = 1024  # per piece; between 500 and 2,000 the time is flat, at widths 64 to 768


def images_per_piece(n_tokens: int) -> int:
    """How many images of `n_tokens` tokens go through a block together."""
    return max(1, TOKENS // n_tokens)


def run_block(model: VisionModel, layer: int, visit: Callable[[Tensor], Tensor | None]) -> None:
    """Run block `layer` inside a trace: `visit` gets its output, and what it returns (None: the same) goes on.

    Names inside the block are not reached; where the model carries edits, which may stand there, it runs in one piece.
    """
    block = model.blocks[layer]
    h = block.input  # (batch, token, d_model)
    images = images_per_piece(h.shape[1])
    if h.device.type != "cpu" or len(h) < 2 * images or model.__dict__.get("_edits"):
        new = visit(block.output)
        if new is not None:
            block.output = new
        return
    args, kwargs = block.inputs
    if not args:  # the residual stream may come by name, first of all
        _, *others = kwargs
        args, kwargs = (h,), {name: kwargs[name] for name in others}
    out = torch.cat([block(piece, *args[1:], **kwargs) for piece in h.split(images)])
    new = visit(out)
    block.skip(out if new is None else new)
