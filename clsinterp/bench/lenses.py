"""Activation patching against TransformerLens, where it is installed: the same sweeps, and how far their results are apart."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyarrow as pa
import torch
import transformers

from clsinterp.bench.models import N_LAYERS
from clsinterp.bench.timing import Row, compare
from clsinterp.data.sample import sample_images
from clsinterp.models.source import resolve
from clsinterp.sweeps.patching import logit_difference, patch_attn_head, patch_resid
from clsinterp.vision_model import VisionModel

TARGET = ">= 2"
IMAGES = 8


def patching_rows(quick: bool) -> list[Row]:
    """The residual stream by layer and token, and heads by layer, on `zoo/vit`; rows that say so without TransformerLens.

    Its own sweep of the residual stream counts tokens by the width of the image in pixels (28 of the 50 here), so it is told
    every token by `index_df`. The small size takes every third layer, whose mean depth is that of all.
    """
    layers = range(1, N_LAYERS, 3) if quick else range(N_LAYERS)
    size = f"{len(layers)} layers, zoo/vit, {IMAGES} images"
    names = [f"patch_resid of resid_pre, every token, {size}", f"patch_attn_head of z, every head, {size}"]
    if importlib.util.find_spec("transformer_lens") is None:
        return [Row.missing(name, "TransformerLens: not installed", TARGET) for name in names]
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    model = VisionModel("zoo/vit", device="cpu")
    images, labels = sample_images(2 * IMAGES)
    pixels = model.pixels(images)
    clean, corrupted = pixels[:IMAGES], pixels[IMAGES:]
    by_image = logit_difference(labels[:IMAGES], labels[IMAGES:])
    folder = resolve("zoo/vit")
    module = transformers.ViTForImageClassification.from_pretrained(folder, attn_implementation="eager")
    theirs = TransformerBridge.boot_transformers(folder, hf_model=module, device="cpu").eval()
    found: dict[str, torch.Tensor] = {}

    def ours(patch: Callable[..., pa.Table], what: str) -> None:
        table = patch(model, clean, corrupted, by_image, what, layers=layers)
        found["ours"] = torch.tensor(table["value"].to_pylist())

    @torch.no_grad()
    def other(setter: Callable, what: str, places: int) -> None:
        _, cache = theirs.run_with_cache(clean, names_filter=lambda name: name.endswith(f"hook_{what}"))
        cells = pd.DataFrame([(layer, place) for layer in layers for place in range(places)])

        def metric(logits: torch.Tensor) -> torch.Tensor:
            return by_image(logits).mean()

        found["theirs"] = patching.generic_activation_patch(
            theirs, corrupted, cache, metric, setter, what, index_df=cells
        )

    sides = [
        (
            partial(ours, patch_resid, "resid_pre"),
            partial(other, patching.layer_pos_patch_setter, "resid_pre", theirs.cfg.n_ctx),
        ),
        (
            partial(ours, patch_attn_head, "z"),
            partial(other, patching.layer_head_vector_patch_setter, "z", theirs.cfg.n_heads),
        ),
    ]
    against, rows = f"TransformerLens {importlib.metadata.version('transformer_lens')}", []
    for name, pair in zip(names, sides, strict=True):
        row = compare(name, against, TARGET, *pair, 2 if quick else 7)
        apart = float((found["ours"] - found["theirs"]).abs().max())
        rows.append(replace(row, what=f"{row.what}; {apart:.0e} apart"))
    return rows
