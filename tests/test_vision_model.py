import json
import shutil

import pytest
import tiny
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.loading import load_checkpoint
from clsinterp.vision_model import VisionModel


@pytest.mark.parametrize("family", list(tiny.BUILD))
def test_check_finds_nothing_wrong(model, family):
    """Logits to the last bit, every token view read, assigned and edited in place, invokes, fork: against plain torch."""
    findings = list(check(model(family)))
    assert [f for f in findings if not f.holds] == []
    views = {f.what.split(".")[1].split()[0] for f in findings if f.what.startswith("token view")}
    assert views == set(model(family).layout.slices)


def test_check_can_fail(model, monkeypatch):
    m = model("vit")
    monkeypatch.setitem(m.layout.slices, "cls", slice(1, 2))  # a table that points at the wrong token
    assert any(not f.holds for f in check(m))


@pytest.mark.parametrize("family", [f for f in tiny.BUILD if f not in ("dinov3", "vit-mae")])
def test_readout_can_be_read_and_written(model, family):
    m, x = model(family), tiny.pixels(4)
    with torch.no_grad():
        with m.trace(x):
            readout = m.readout.clone().save()
            logits = m.logits.save()
        with m.trace(x):
            m.readout = readout.flip(0)
            written = m.logits.save()
        plain = m(x).logits
    assert readout.shape == (4, tiny.WIDTH * len(m.family.readouts))
    assert torch.equal(logits, plain)
    torch.testing.assert_close(written, logits.flip(0))


def test_readout_is_the_mean_of_patches_where_the_row_says_so(model):
    for family in ("dinov2", "clip", "dinov3"):
        m, x = model(family), tiny.pixels(3)
        with torch.no_grad(), m.trace(x):
            tokens = m.blocks[-1].patches.clone().save()
            readout = m.readout.clone().save()
        if m.lens_norm is not None:
            tokens = m.lens_norm(tokens)
        torch.testing.assert_close(readout[:, -tiny.WIDTH :], tokens.mean(1))


def test_logits_can_be_assigned(model):
    m, x = model("vit"), tiny.pixels(3)
    with torch.no_grad(), m.trace(x):
        m.logits = m.logits * 2
        doubled = m.output.logits.save()
    assert torch.equal(doubled, m(x).logits * 2)


@pytest.mark.parametrize("family", tiny.FIVE)
def test_standard_names(model, family):
    m, x = model(family), tiny.pixels(2)
    assert (m.n_layers, m.d_model, m.n_classes) == (tiny.LAYERS, tiny.WIDTH, tiny.CLASSES)
    assert m.class_names == list(tiny.NAMES.values())
    n_tokens = m.layout.n_prefix + (tiny.SIZE // tiny.PATCH) ** 2
    with torch.no_grad(), m.trace(x):
        embed = m.embed.output.save()
        ln1 = m.blocks[1].ln1.output.save()
        attn = m.blocks[1].attn.output[0].save()
        ln2 = m.blocks[1].ln2.output.save()
        mlp = m.blocks[1].mlp.output.save()
        head = m.head.output.save()
    assert {tuple(t.shape) for t in (embed, ln1, attn, ln2, mlp)} == {(2, n_tokens, tiny.WIDTH)}
    assert head.shape == (2, tiny.CLASSES)


def test_gradients_flow_through_a_trace(model):
    m, x = model("vit"), tiny.pixels(2)
    with m.trace(x):
        resid = m.blocks[1].resid
        resid.requires_grad_(True)
        loss = m.logits.sum()
        with loss.backward():
            grad = resid.grad.save()
    assert grad.shape == (2, 10, tiny.WIDTH)
    assert grad.abs().sum() > 0


def test_pictures_and_their_pixels_give_the_same_logits(model):
    m = model("vit")
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "navy")]
    with torch.no_grad():
        with m.trace(images):
            listed = m.logits.save()
        with m.trace() as tracer:
            with tracer.invoke(images[0]):
                first = m.logits.save()
            with tracer.invoke(images[1:]):
                rest = m.logits.save()
    assert torch.equal(listed, m(m.pixels(images)).logits)
    assert torch.equal(torch.cat([first, rest]), listed)
    assert torch.equal(m.pixels(images[0]), m.pixels(images)[:1])


def test_a_loaded_module_is_wrapped_as_it_is():
    module = tiny.build("deit")
    m = VisionModel(module, image_processor=tiny.processor())
    x = tiny.pixels(2)
    assert m._module is module
    with torch.no_grad(), m.trace(x):
        logits = m.logits.save()
    assert torch.equal(logits, module(x).logits)
    with pytest.raises(RequestError, match="no image processor"):
        VisionModel(tiny.build("vit")).pixels(Image.new("RGB", (9, 9)))
    with pytest.raises(RequestError, match="no Hugging Face config"):
        VisionModel(torch.nn.Linear(2, 2))


def test_wrong_input_names_what_was_given(model):
    with pytest.raises(RequestError, match=r"shape \(3, 4\).*batch, channel, height, width"):
        model("vit").pixels(torch.zeros(3, 4))
    with pytest.raises(RequestError, match="str was given"):
        model("vit").pixels(["cat.png"])


# -- loading ---------------------------------------------------------------------


@pytest.fixture
def copy(checkpoint, tmp_path):
    def of(family: str):
        return shutil.copytree(checkpoint(family), tmp_path / family)

    return of


def edit_weights(folder, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("vit", "vit.layernorm.weight"),
        ("deit", "deit.encoder.layer.2.intermediate.dense.weight"),
        ("beit", "beit.encoder.layer.0.lambda_1"),
        ("dinov2", "dinov2.encoder.layer.3.norm1.bias"),
        ("clip", "vision_model.pre_layrnorm.weight"),
    ],
)
def test_a_missing_backbone_weight_is_refused_by_name(copy, family, key):
    folder = copy(family)
    edit_weights(folder, lambda w: w.pop(key))
    with pytest.raises(RequestError, match=rf"lacks 1 weights.*{key.split('.')[-1]}"):
        VisionModel(str(folder))


@pytest.mark.parametrize("family", tiny.FIVE)
def test_a_missing_head_is_noticed_and_allowed(copy, family):
    folder = copy(family)
    edit_weights(folder, lambda w: [w.pop(k) for k in list(w) if "classifier" in k])
    m = VisionModel(str(folder))
    assert not m.checkpoint.head_is_own
    assert m.n_classes is None


def test_beit_read_from_its_cls_token_may_lack_the_final_norm(copy):
    folder = copy("beit-mean")
    with pytest.raises(RequestError, match="no field 'use_mean_poling'"):
        VisionModel(str(folder), config={"use_mean_poling": False})
    m = VisionModel(str(folder), config={"use_mean_pooling": False})
    assert m.family.name == "beit"
    assert m.family.readouts == ("cls",)


def test_weights_of_another_shape_are_refused(copy):
    folder = copy("vit")
    edit_weights(folder, lambda w: w.update({"vit.layernorm.weight": torch.ones(tiny.WIDTH + 1)}))
    with pytest.raises(RequestError, match="vit"):
        VisionModel(str(folder))


def test_nan_weights_are_refused(copy):
    folder = copy("vit")
    key = "vit.encoder.layer.1.attention.attention.key.bias"
    edit_weights(folder, lambda w: w[key].fill_(float("nan")))
    with pytest.raises(RequestError, match=r"NaN or infinity in 1 weights: vit.layers.1.attention.k_proj.bias"):
        VisionModel(str(folder))


def test_truncated_weights_are_refused(copy):
    folder = copy("vit")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(RequestError, match=r"cannot load|no usable safetensors"):
        VisionModel(str(folder))


def test_pickled_weights_only_on_request(copy):
    folder = copy("vit")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="allow_pickle=True"):
        VisionModel(str(folder))
    x = tiny.pixels(2)
    assert torch.equal(VisionModel(str(folder), allow_pickle=True)(x).logits, tiny.build("vit")(x).logits)


def test_code_in_a_checkpoint_is_never_run(copy):
    folder = copy("vit")
    config = json.loads((folder / "config.json").read_text())
    trap = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match=r"'evil'.*without running code"):
        VisionModel(str(folder))
    assert not trap.exists()


def test_sources_that_are_not_checkpoints(tmp_path, copy):
    for source, text in (
        (str(tmp_path), "without config.json"),
        ("zoo/cat", "not in the zoo"),
        ("./nowhere", "neither a checkpoint folder nor a hub id"),
    ):
        with pytest.raises(RequestError, match=text):
            VisionModel(source)
    folder = copy("vit")
    (folder / "config.json").write_text("[]")
    with pytest.raises(RequestError, match="config"):
        VisionModel(str(folder))
    hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(
        tmp_path / "resnet"
    )
    with pytest.raises(
        RequestError, match="ResNetForImageClassification is not supported: it is a convolutional network"
    ):
        VisionModel(str(tmp_path / "resnet"))
    with pytest.raises(RequestError, match="Linear has no Hugging Face config"):
        VisionModel(torch.nn.Linear(2, 2))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTForDreams"]}))
    with pytest.raises(RequestError, match="architecture ViTForDreams is not in the family table"):
        VisionModel(str(folder))


def test_a_config_that_lies_about_depth_is_refused(copy):
    folder = copy("vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": tiny.LAYERS + 1}))
    with pytest.raises(RequestError, match="lacks 16 weights"):
        VisionModel(str(folder))


def test_backbones_saved_without_a_classifier(tmp_path):
    """The hub's facebook/dinov2-base and openai/clip-vit-base-patch32 are such checkpoints."""
    x = tiny.pixels(2)
    for family, attribute in (("dinov2", "dinov2"), ("clip", "vision_model"), ("vit", "vit")):
        whole = tiny.build(family)
        folder = tmp_path / family
        getattr(whole, attribute).save_pretrained(folder)
        tiny.processor().save_pretrained(folder)
        loaded = load_checkpoint(str(folder))
        assert not loaded.head_is_own
        assert loaded.family.name == family
        with torch.no_grad():
            assert torch.equal(loaded.module(x).last_hidden_state, getattr(whole, attribute)(x).last_hidden_state)


def test_unknown_dtype_and_device(checkpoint):
    with pytest.raises(RequestError, match="dtype 'int4'"):
        VisionModel(str(checkpoint("vit")), dtype="int4")
    with pytest.raises(RequestError, match="device 'abacus'"):
        VisionModel(str(checkpoint("vit")), device="abacus")


def test_image_size_resizes_what_goes_in_where_positions_are_interpolated(checkpoint, pictures):
    model = VisionModel(str(checkpoint("dinov2")), device="cpu", image_size=3 * tiny.PATCH + tiny.PATCH)
    with model.trace([pictures(0, 0, size=50)]):
        patches = model.blocks[0].patches.save()
    assert patches.shape[1] == 16
    model = VisionModel(str(checkpoint("dinov2")), device="cpu")
    assert model.pixels(pictures(0, 0, size=50)).shape[-1] == tiny.SIZE  # the original processor is untouched


@pytest.mark.parametrize(
    ("family", "side", "words"),
    [("vit", 48, "positions for 24 pixels only"), ("dinov2", 30, "multiple of the patch size 8")],
)
def test_an_image_size_that_cannot_be_is_refused(checkpoint, family, side, words):
    with pytest.raises(RequestError, match=words):
        VisionModel(str(checkpoint(family)), device="cpu", image_size=side)
