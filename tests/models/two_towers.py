"""Tiny random two-tower models with tokenizers that work offline, made by their own libraries."""

from pathlib import Path

import tiny
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

CLASSES = ["cat", "ankle boot", "t-shirt"]
TEMPLATES = ["a photo of a {}.", "{}"]
WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Letters for tokens, then an end token."""
    letters = "abcdefghijklmnopqrstuvwxyz .-"
    vocabulary = {piece: i for i, piece in enumerate(["<pad>", "<end>", "<unk>", *letters])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=40
    )


def build(kind: str) -> torch.nn.Module:
    """A random model of `kind`: ``CLIP``, ``MetaClip2`` or ``Siglip``."""
    torch.manual_seed(0)
    text = {**WIDE, "vocab_size": 40, "max_position_embeddings": 40}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    if kind == "Siglip":
        text["projection_size"] = tiny.WIDTH
    options = {} if kind == "Siglip" else {"projection_dim": 12}
    config = getattr(hf, f"{kind}Config")(text_config=text, vision_config=tiny.BASE, **options)
    model = getattr(hf, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "token" in name or "embedding" in name:
                p.normal_(0, 0.3)
    return model


def save(kind: str, folder: Path) -> Path:
    """`build(kind)` with tokenizer and image processor, as on the hub."""
    build(kind).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


def hf_logits(model: torch.nn.Module, pixels: torch.Tensor, template: str) -> torch.Tensor:
    """``logits_per_image`` of the library's own forward, for one template."""
    padding = "max_length" if type(model).__name__ == "SiglipModel" else True
    ids = tokenizer()([template.replace("{}", name) for name in CLASSES], padding=padding, return_tensors="pt")
    given = {"input_ids": ids["input_ids"]} if padding == "max_length" else dict(ids)
    with torch.no_grad():
        return model(pixel_values=pixels, **given).logits_per_image
