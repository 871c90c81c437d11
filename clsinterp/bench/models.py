"""Random models to measure on: speed does not depend on what weights say."""

from typing import Any, NamedTuple

import torch
import transformers

from clsinterp.vision_model import VisionModel

N_LAYERS = 12
N_CLASSES = 100


class Size(NamedTuple):
    """A model and how many images ride in a batch."""

    width: int
    side: int
    patch: int
    images: int

    def __str__(self) -> str:
        """For tables."""
        return f"{N_LAYERS} x {self.width}, {(self.side // self.patch) ** 2} patches, {self.images} images"


ZOO = Size(width=64, side=28, patch=4, images=128)
BASE = Size(width=768, side=224, patch=16, images=4)


def random_model(family: str, size: Size, n_layers: int = N_LAYERS) -> VisionModel:
    """A ``vit``, ``deit`` or ``dinov2`` of that size with random weights."""
    options: dict[str, Any] = {
        "hidden_size": size.width,
        "num_hidden_layers": n_layers,
        "num_attention_heads": max(2, size.width // 64),
        "image_size": size.side,
        "patch_size": size.patch,
        "num_labels": N_CLASSES,
    }
    torch.manual_seed(0)
    if family == "dinov2":
        return VisionModel(transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**options)))
    options["intermediate_size"] = 4 * size.width
    if family == "deit":
        return VisionModel(transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**options)))
    return VisionModel(transformers.ViTForImageClassification(transformers.ViTConfig(**options)))


def random_pixels(size: Size) -> torch.Tensor:
    """A batch for a model of that size."""
    return torch.randn(size.images, 3, size.side, size.side, generator=torch.Generator().manual_seed(0))
