"""How many rows fit into memory."""

import os

import torch

from clsinterp.errors import RequestError
from clsinterp.model import VisionModel

# Tensors of (rows, token, d_model) alive at the widest point of a block, the MLP's hidden layer counted as 2 x 4:
# residual in and out, the grown batch, norm, q, k, v, z, and the hidden layer before and after the activation.
LIVE_PER_BLOCK = 16
SHARE_OF_FREE = 0.5


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def micro_batch(model: VisionModel, pixels_shape: tuple[int, ...], n_forks: int, memory_gb: float | None) -> int:
    """Images per micro-batch such that the fork's rows stay within the budget (default: half of what is free).

    Raises:
        RequestError: not even one image fits.
    """
    device = next(model._module.parameters()).device
    budget = memory_gb * 1e9 if memory_gb is not None else SHARE_OF_FREE * free_bytes(device)
    patch = model.vision_config.patch_size
    n_tokens = model.layout.n_prefix + (pixels_shape[-2] // patch) * (pixels_shape[-1] // patch)
    per_row = n_tokens * model.d_model * LIVE_PER_BLOCK * next(model._module.parameters()).element_size()
    if getattr(model._module.config, "_attn_implementation", "sdpa") == "eager":
        per_row += 3 * model.vision_config.num_attention_heads * n_tokens**2 * 4
    per_image = per_row * (n_forks + 1)
    if budget < per_image:
        raise RequestError(
            f"a memory budget of {budget / 1e9:.3g} GB was given, but one image with its {n_forks} swapped copies needs "
            f"{per_image / 1e9:.3g} GB; give more with --memory-gb, or ask for fewer --layers."
        )
    return min(pixels_shape[0], int(budget // per_image))
