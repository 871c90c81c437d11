"""Checkpoints as they lie on the hub, by the id that a user types: their configs with small sizes, weights small and random."""

import json
import socket

import hub_cache
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors import safe_open

from clsinterp.errors import RequestError
from clsinterp.vision_model import VisionModel

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
OLD = {"torch_dtype": "float32", "transformers_version": "4.31.0.dev0"}
NAMES = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
DINOV2 = SMALL | {"image_size": 518, "patch_size": 14, "mlp_ratio": 4, "layerscale_value": 1.0, "use_swiglu_ffn": False}
PATCH16 = SMALL | {"image_size": 224, "patch_size": 16}
PATCH32 = SMALL | {"image_size": 224, "patch_size": 32}
TEXT = SMALL | {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 8}
DECODER = {f"decoder_{key}": value for key, value in SMALL.items()}
VIT = ("ViTImageProcessor", {"size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
BIT = (
    "BitImageProcessor",
    {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
)
CLIP = ("CLIPImageProcessor", {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}})
SIGLIP = ("SiglipImageProcessor", {"size": {"height": 224, "width": 224}})

# id -> (class that it was saved by, its config, image processor, row, a name of its weights)
PUBLISHED = {
    "google/vit-base-patch16-224": (
        "ViTForImageClassification", PATCH16 | LABELS, VIT, "vit",
        "vit.encoder.layer.0.attention.attention.query.weight",
    ),
    "google/vit-base-patch16-224-in21k": ("ViTModel", PATCH16, VIT, "vit", "encoder.layer.0.layernorm_before.weight"),
    "facebook/dinov2-base": ("Dinov2Model", DINOV2, BIT, "dinov2", "encoder.layer.0.norm1.weight"),
    "facebook/dinov2-base-imagenet1k-1-layer": (
        "Dinov2ForImageClassification", DINOV2 | LABELS, BIT, "dinov2", "dinov2.encoder.layer.0.layer_scale1.lambda1",
    ),
    "facebook/vit-mae-base": (
        "ViTMAEForPreTraining", PATCH16 | DECODER, VIT, "vit-mae", "vit.encoder.layer.0.layernorm_before.weight",
    ),
    "openai/clip-vit-base-patch32": (
        "CLIPModel", {"vision_config": PATCH32, "text_config": TEXT, "projection_dim": 24}, CLIP, "clip",
        "vision_model.encoder.layers.0.self_attn.q_proj.weight",
    ),
    "google/siglip-base-patch16-224": (
        "SiglipModel", {"vision_config": PATCH16, "text_config": TEXT}, SIGLIP, "siglip",
        "vision_model.head.probe",
    ),
    "facebook/data2vec-vision-base": (
        "Data2VecVisionModel", PATCH16 | {"use_relative_position_bias": True, "use_mean_pooling": True} | {"out_indices": [1, 2]},
        VIT, "data2vec-vision-mean", "encoder.layer.0.lambda_1",
    ),
}  # fmt: skip


def publish(cache, tmp_path, name):
    """Put `name` into the cache; the module that was saved."""
    cls, config, (processor, options), _, _ = PUBLISHED[name]
    torch.manual_seed(0)
    hf_class = getattr(hf, cls)
    module = hf_class(hf_class.config_class(**config)).eval()
    folder = tmp_path / "saved"
    module.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(written | OLD))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **options}))
    hub_cache.add(cache, name, folder)
    return module, folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_id_loads_as_what_it_is(name, tmp_path, monkeypatch):
    cache = hub_cache.use(tmp_path / "hub", monkeypatch)
    cls, _, _, row, weight = PUBLISHED[name]
    module, folder = publish(cache, tmp_path, name)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert weight in file.keys()  # noqa: SIM118 - no dictionary
    model = VisionModel(name, device="cpu")
    assert model.family.name == row
    assert model.checkpoint.revision == hub_cache.COMMIT
    pixels = model.pixels(Image.new("RGB", (300, 260), "teal"))
    assert pixels.shape == (1, 3, 224, 224)
    with torch.no_grad():
        output = model(pixels)
        if "ForImageClassification" in cls:
            assert torch.equal(output.logits, module(pixels).logits)
            assert model.class_names == NAMES
            return
        assert model.class_names is None
        with pytest.raises(RequestError, match="fit_head"), model.trace(pixels):
            model.logits.save()
        if cls != "ViTMAEForPreTraining":  # which leaves out patches at random
            tower = getattr(module, "vision_model", module)
            assert torch.equal(output.last_hidden_state, tower(pixels).last_hidden_state)


def test_a_folder_takes_no_network(tmp_path, monkeypatch):
    _, folder = publish(hub_cache.use(tmp_path / "hub", monkeypatch), tmp_path, "facebook/dinov2-base")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert VisionModel(str(folder), device="cpu").family.name == "dinov2"
