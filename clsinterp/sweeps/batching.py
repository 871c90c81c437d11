"""How a grown batch goes through the model: how many images ride at once, and through a block how many at a time.

On a CPU a block of a small model is bound by memory once its hidden layer outgrows the cache: at width 64, 1,664 images in
one piece cost 1.5 times as much per image as 20 at a time. So blocks take a grown batch a piece at a time. The pieces are
calls of the same module on fewer rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.prefix_block import prefix_block
from clsinterp.models.unstable import attention_kernel, edits_of

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel

# Tensors of (rows, token, d_model) alive at the widest point of a block, the MLP's hidden layer counted as 2 x 4:
# residual in and out, the grown batch, norm, q, k, v, z, and the hidden layer before and after the activation.
LIVE_PER_BLOCK = 16
SHARE_OF_FREE = 0.5
TOKENS = 1024  # per piece; between 500 and 2,000 the time is flat, at widths 64 to 768


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def images_at_once(
    model: VisionModel, height: int, width: int, n_forks: int, memory_gb: float | None, sharers: int = 1
) -> int:
    """How many images, each with its swapped copies, stay within the budget (default: half of what is free).

    On a server, whose memory is not known here: as many as its `Server` says, or any number.

    Args:
        model: the model that will run.
        height: of the pixels.
        width: of the pixels.
        n_forks: layers at which tokens are replaced, one copy of each image for each.
        memory_gb: the budget in units of 1e9 bytes, for activations; weights are not counted.
        sharers: workers that share the device, and so the budget.

    Raises:
        RequestError: not even one image fits.
    """
    if model.server is not None:
        if memory_gb is not None:
            raise RequestError("memory_gb= budgets this machine's memory; for a server, give per_request=.")
        return model.per_request or sys.maxsize
    parameter = next(model._module.parameters())
    budget = memory_gb * 1e9 if memory_gb is not None else SHARE_OF_FREE * free_bytes(parameter.device)
    budget /= sharers
    rows, columns = model.sizes.patch
    n_tokens = model.layout.n_prefix + (height // rows) * (width // columns)
    per_row = n_tokens * model.d_model * LIVE_PER_BLOCK * parameter.element_size()
    if attention_kernel(model._module) == "eager":
        per_row += 3 * model.n_heads * n_tokens**2 * 4
    per_image = per_row * (n_forks + 1)
    if budget < per_image:
        raise RequestError(
            f"a memory budget of {budget / 1e9:.3g} GB was given, but one image with its {n_forks} swapped copies needs "
            f"{per_image / 1e9:.3g} GB; give more with memory_gb=, or ask for fewer layers=."
        )
    return int(budget // per_image)


def images_per_piece(n_tokens: int) -> int:
    """How many images of `n_tokens` tokens go through a block together."""
    return max(1, TOKENS // n_tokens)


def run_block(
    model: VisionModel,
    layer: int,
    visit: Callable[[Tensor], Tensor | None],
    whole: bool = False,
    prefix_only: bool = False,
) -> None:
    """Run block `layer` inside a trace: `visit` gets its output, and what it returns (None: the same) goes on.

    Names inside the block are not reached; where the model carries edits, which may stand there, or under `whole`, after names
    inside were used, it runs in one piece. `prefix_only` says that nobody reads what it makes of the patches: it is left
    out (`clsinterp.models.prefix_block`), unless something else stands in the block.
    """
    block = model.blocks[layer]
    if whole or edits_of(model):
        new = visit(block.output)
        if new is not None:
            block.output = new
        return
    h = block.input  # (batch, token, d_model)
    images = images_per_piece(h.shape[1]) if h.device.type == "cpu" else len(h)
    fewer = prefix_block(model, layer) if prefix_only else None
    if len(h) < 2 * images and fewer is None:
        new = visit(block.output)
        if new is not None:
            block.output = new
        return
    args, kwargs = block.inputs
    if not args:  # the residual stream may come by name, first of all
        _, *others = kwargs
        args, kwargs = (h,), {name: kwargs[name] for name in others}
    run = block if fewer is None else fewer
    out = torch.cat([run(piece, *args[1:], **kwargs) for piece in h.split(images)])
    new = visit(out)
    block.skip(out if new is None else new)
