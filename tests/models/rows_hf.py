"""A tiny random model of every class of transformers that a row of the family table names, made by transformers."""

import tiny
import torch
import transformers as hf

BASE = {**tiny.BASE, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
BEIT = {"use_relative_position_bias": True, "layer_scale_init_value": 0.7}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}
TEXT |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
DATA2VEC = {**BEIT, "out_indices": [1, 2]}
MLP2 = {"mlp_ratio": 2}


def one(cls: str, config: str, **more):
    """A model with one config."""
    return cls, lambda: getattr(hf, cls)(getattr(hf, config)(**BASE, **tiny.LABELS, **more))


def two(cls: str, config: str, **more):
    """A model of images and text."""

    def make():
        made = getattr(hf, config)(vision_config=BASE | more, text_config=TEXT)
        made.id2label, made.label2id = tiny.LABELS["id2label"], tiny.LABELS["label2id"]
        return getattr(hf, cls)(made)

    return cls, make


# (row, class, with a classifier) -> maker
MAKERS = {
    (row, cls): make
    for row, (cls, make) in (
        ("vit", one("ViTModel", "ViTConfig")),
        ("vit", one("ViTForImageClassification", "ViTConfig")),
        ("vit", one("ViTForMaskedImageModeling", "ViTConfig", encoder_stride=8)),
        ("deit", one("DeiTForImageClassificationWithTeacher", "DeiTConfig")),
        ("deit-no-teacher", one("DeiTModel", "DeiTConfig")),
        ("deit-no-teacher", one("DeiTForImageClassification", "DeiTConfig")),
        ("beit", one("BeitModel", "BeitConfig", use_mean_pooling=False, **BEIT)),
        ("beit-mean", one("BeitModel", "BeitConfig", **BEIT)),
        ("beit", one("BeitForMaskedImageModeling", "BeitConfig", use_mean_pooling=False, **BEIT)),
        (
            "data2vec-vision",
            one("Data2VecVisionForImageClassification", "Data2VecVisionConfig", use_mean_pooling=False, **DATA2VEC),
        ),
        ("data2vec-vision-mean", one("Data2VecVisionForImageClassification", "Data2VecVisionConfig", **DATA2VEC)),
        ("data2vec-vision-mean", one("Data2VecVisionModel", "Data2VecVisionConfig", **DATA2VEC)),
        ("dinov2", one("Dinov2Model", "Dinov2Config", **MLP2)),
        ("dinov2", one("Dinov2ForImageClassification", "Dinov2Config", use_swiglu_ffn=True, **MLP2)),
        ("dinov2", one("Dinov2Backbone", "Dinov2Config", **MLP2)),
        (
            "dinov2-registers",
            one("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", num_register_tokens=3, **MLP2),
        ),
        ("dinov3", one("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=2)),
        ("dinov3", one("DINOv3ViTBackbone", "DINOv3ViTConfig", num_register_tokens=2, use_gated_mlp=True)),
        ("vit-mae", one("ViTMAEModel", "ViTMAEConfig")),
        ("vit-msn", one("ViTMSNModel", "ViTMSNConfig")),
        ("vit-msn", one("ViTMSNForImageClassification", "ViTMSNConfig")),
        ("ijepa", one("IJepaModel", "IJepaConfig")),
        ("ijepa", one("IJepaForImageClassification", "IJepaConfig")),
        ("pixio", one("PixioModel", "PixioConfig", n_cls_tokens=2, **MLP2)),
        ("clip", two("CLIPModel", "CLIPConfig")),
        ("clip", one("CLIPVisionModel", "CLIPVisionConfig")),
        ("clip", one("CLIPVisionModelWithProjection", "CLIPVisionConfig")),
        ("siglip", two("SiglipModel", "SiglipConfig")),
        ("siglip", one("SiglipVisionModel", "SiglipVisionConfig")),
        ("metaclip-2", two("MetaClip2Model", "MetaClip2Config")),
        ("metaclip-2", two("MetaClip2ForImageClassification", "MetaClip2Config")),
        ("altclip", one("AltCLIPVisionModel", "AltCLIPVisionConfig")),
        ("altclip", two("AltCLIPModel", "AltCLIPConfig")),
        ("chinese-clip", two("ChineseCLIPModel", "ChineseCLIPConfig")),
        ("clipseg", two("CLIPSegModel", "CLIPSegConfig")),
        ("owlvit", two("OwlViTModel", "OwlViTConfig")),
        ("owlv2", one("Owlv2VisionModel", "Owlv2VisionConfig")),
        ("blip", one("BlipVisionModel", "BlipVisionConfig")),
        ("blip-2", one("Blip2VisionModel", "Blip2VisionConfig")),
        ("instructblip", one("InstructBlipVisionModel", "InstructBlipVisionConfig")),
        ("aimv2", one("Aimv2VisionModel", "Aimv2VisionConfig", is_native=True, use_head=False)),
        ("aimv2", two("Aimv2Model", "Aimv2Config", use_head=True)),
    )
}


def build(row: str, cls: str) -> torch.nn.Module:
    """The model, its weights large enough that every place matters."""
    torch.manual_seed(0)
    model = MAKERS[row, cls]().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "token" in name or "embedding" in name:
                p.normal_(0, 0.4 if p.ndim == 2 else 0.5)
            elif p.ndim and ("lambda" in name or "bias" in name):
                p.uniform_(-0.5, 1.0)
    return model
