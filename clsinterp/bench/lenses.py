"""Activation patching against TransformerLens, where it is installed: the same sweeps, and how far their results are apart."""

import importlib.metadata
import importlib.util

import torch
import transformers

from clsinterp.bench.timing import Row, compare
from clsinterp.data.sample import sample_images
from clsinterp.models.checkpoint import resolve
from clsinterp.sweeps.patching import logit_difference, patch_attn_head, patch_resid
from clsinterp.vision_model import VisionModel

SWEEPS = {
    "patch_resid(.., 'resid_pre'), every layer and token": ">= 2",
    "patch_attn_head(.., 'z'), every layer and head": ">= 2",
}
IMAGES = 8


def patching_rows(quick: bool) -> list[Row]:
    """Both sweeps on `zoo/vit`; where TransformerLens is not installed, rows that say so.

    Its own sweep of the residual stream counts tokens by the width of the image in pixels (28 of the 50 here), so it is told
    every token by `index_df`.
    """
    names = [f"{what}, zoo/vit, {IMAGES} images" for what in SWEEPS]
    if importlib.util.find_spec("transformer_lens") is None:
        return [Row.missing(name, "TransformerLens", target) for name, target in zip(names, SWEEPS.values(), strict=True)]
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    model = VisionModel("zoo/vit", device="cpu")
    images, labels = sample_images(2 * IMAGES)
    pixels = model.pixels(images)
    clean, corrupted, right, wrong = pixels[:IMAGES], pixels[IMAGES:], labels[:IMAGES], labels[IMAGES:]
    by_image = logit_difference(right, wrong)
    folder = resolve("zoo/vit")
    module = transformers.ViTForImageClassification.from_pretrained(folder, attn_implementation="eager")
    theirs = TransformerBridge.boot_transformers(folder, hf_model=module, device="cpu").eval()
    n_tokens = theirs.cfg.n_ctx
    tokens = pd.DataFrame([(layer, token) for layer in range(model.n_layers) for token in range(n_tokens)])
    found: dict[str, torch.Tensor] = {}

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return by_image(logits).mean()

    @torch.no_grad()
    def cache():
        return theirs.run_with_cache(clean)[1]

    def ours_resid() -> None:
        table = patch_resid(model, clean, corrupted, by_image, "resid_pre")
        found["ours"] = torch.tensor(table["value"].to_pylist())

    def ours_heads() -> None:
        found["ours"] = torch.tensor(patch_attn_head(model, clean, corrupted, by_image, "z")["value"].to_pylist())

    @torch.no_grad()
    def theirs_resid() -> None:
        sweep = patching.generic_activation_patch
        setter = patching.layer_pos_patch_setter
        found["theirs"] = sweep(theirs, corrupted, cache(), metric, setter, "resid_pre", index_df=tokens)

    @torch.no_grad()
    def theirs_heads() -> None:
        found["theirs"] = patching.get_act_patch_attn_head_out_all_pos(theirs, corrupted, cache(), metric).flatten()

    against, rows = f"TransformerLens {importlib.metadata.version('transformer_lens')}", []
    for name, target, ours, other in zip(
        names, SWEEPS.values(), (ours_resid, ours_heads), (theirs_resid, theirs_heads), strict=True
    ):
        row = compare(name, against, target, ours, other, 3 if quick else 7)
        apart = float((found["ours"] - found["theirs"]).abs().max())
        rows.append(Row(f"{row.what}; {apart:.0e} apart", *list(vars(row).values())[1:]))
    return rows
