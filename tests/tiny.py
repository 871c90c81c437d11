"""Tiny random checkpoints of every family, saved in the format the hub uses."""

from pathlib import Path

import torch
import transformers as hf

SIZE, PATCH, WIDTH, LAYERS, HEADS, CLASSES = 24, 8, 32, 4, 2, 7
BASE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "image_size": SIZE,
    "patch_size": PATCH,
}
NAMES = {i: f"class {i}" for i in range(CLASSES)}
LABELS = {"id2label": NAMES, "label2id": {v: k for k, v in NAMES.items()}}


def _two_towers(config_class, model_class, labels):
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 9,
    }
    config = config_class(vision_config=BASE, text_config=text)
    config.id2label, config.label2id = labels["id2label"], labels["label2id"]
    return model_class(config)


BUILD = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**BASE, **LABELS)),
    "deit": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**BASE, **LABELS)),
    "beit": lambda: hf.BeitForImageClassification(
        hf.BeitConfig(
            **BASE, **LABELS, use_mean_pooling=False, use_relative_position_bias=True, layer_scale_init_value=0.7
        )
    ),
    "beit-mean": lambda: hf.BeitForImageClassification(
        hf.BeitConfig(**BASE, **LABELS, use_mean_pooling=True, use_shared_relative_position_bias=True)
    ),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**BASE, **LABELS, mlp_ratio=2)),
    "clip": lambda: _two_towers(hf.CLIPConfig, hf.CLIPForImageClassification, LABELS),
    "dinov2-registers": lambda: hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(**BASE, **LABELS, mlp_ratio=2, num_register_tokens=3)
    ),
    "deit-no-teacher": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**BASE, **LABELS)),
    "siglip": lambda: _two_towers(hf.SiglipConfig, hf.SiglipForImageClassification, LABELS),
    "vit-mae": lambda: hf.ViTMAEForPreTraining(
        hf.ViTMAEConfig(
            **BASE,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
        )
    ),
    "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**BASE, num_register_tokens=2)),
}
FIVE = ("vit", "deit", "beit", "dinov2", "clip")
WITH_CLS = tuple(name for name in BUILD if name != "siglip")


def build(family: str, seed: int = 0) -> torch.nn.Module:
    """A random model whose logits differ enough between images that ranks mean something."""
    torch.manual_seed(seed)
    model = BUILD[family]().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "token" in name or "embedding" in name:
                p.normal_(0, 0.3 if p.ndim == 2 else 0.5)
    return model


def processor():
    return hf.ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def save(family: str, folder: Path, seed: int = 0) -> Path:
    """Save `build(family)` with an image processor; returns the folder."""
    model = build(family, seed)
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def pixels(n: int, seed: int = 1) -> torch.Tensor:
    """Random pixel values (n, 3, SIZE, SIZE)."""
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
