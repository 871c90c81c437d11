"""Configs and image processors that were made by accident or by an enemy: refused by name, or right to the last bit."""

import json
import shutil

import pytest
import test_open_clip
import timm_models
import tiny
import torch
import transformers as hf
from command_line import invoke_flat

from clsinterp.errors import RequestError
from clsinterp.views.lens import lens
from clsinterp.vision_model import VisionModel

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
GONE = "(this field is removed)"
MANY, NAN = 10**9, float("nan")
NAMES = [f"c{i}" for i in range(tiny.CLASSES + 1)]


def named(*places):
    return {str(place): NAMES[i] for i, place in enumerate(places)}


def square(side):
    return {"height": side, "width": side}


def written(folder, file, changes):
    """Change fields of a JSON file, by their paths; a string in the place of changes is the whole file."""
    if isinstance(changes, str):
        (folder / file).write_text(changes)
        return
    whole = json.loads((folder / file).read_text())
    for path, value in changes.items():
        *above, last = path.split(".")
        at = whole
        for name in above:
            at = at[name]
        at.pop(last, None) if value == GONE else at.update({last: value})
    (folder / file).write_text(json.dumps(whole))


@pytest.fixture
def mutated(checkpoint, tmp_path):
    """(family, file, changes) -> the folder of a tiny checkpoint with changes made."""

    def get(family, file, changes):
        folder = tmp_path / family
        shutil.copytree(checkpoint(family), folder)
        written(folder, file, changes)
        return folder

    return get


# Family, file, changes, what the refusal says beside the file's name.
REFUSED = [
    ("vit", CONFIG, {"num_hidden_layers": MANY}, "num_hidden_layers 1000000000, but its weights are 72 tensors"),
    ("beit", CONFIG, {"num_hidden_layers": MANY}, "num_hidden_layers 1000000000, but its weights are"),
    ("dinov2", CONFIG, {"num_hidden_layers": MANY}, "num_hidden_layers 1000000000, but its weights are"),
    ("clip", CONFIG, {"vision_config.num_hidden_layers": MANY}, "vision_config.num_hidden_layers 1000000000, but"),
    ("vit", CONFIG, {"num_hidden_layers": 0}, "num_hidden_layers 0; a whole number above 0"),
    ("vit", CONFIG, {"num_hidden_layers": 3}, "16 weights for which .* such as vit.layers.3"),
    ("clip", CONFIG, {"vision_config.num_hidden_layers": 1}, "weights for which .* such as vision_model.encoder.layers.1"),
    ("vit", CONFIG, {"num_hidden_layers": 5}, "lacks 16 weights"),
    ("vit", CONFIG, {"num_hidden_layers": "4"}, "num_hidden_layers '4'; a whole number"),
    ("vit", CONFIG, {"num_hidden_layers": None}, "num_hidden_layers' expected int, got NoneType"),
    ("vit", CONFIG, {"num_hidden_layers": True}, "num_hidden_layers True; a whole number"),
    ("vit", CONFIG, {"num_attention_heads": -1}, "num_attention_heads -1; a whole number above 0"),
    ("deit", CONFIG, {"num_attention_heads": 0}, "num_attention_heads 0; a whole number above 0"),
    ("clip", CONFIG, {"vision_config.num_attention_heads": -1}, "vision_config.num_attention_heads -1"),
    ("vit", CONFIG, {"num_attention_heads": 3}, "hidden_size 32 and num_attention_heads 3; a width that its heads divide"),
    ("vit", CONFIG, {"num_attention_heads": 64}, "hidden_size 32 and num_attention_heads 64"),
    ("vit", CONFIG, {"hidden_size": MANY}, "hidden_size"),
    ("vit", CONFIG, {"hidden_size": 64}, "asks for .* of another shape, .*64.*, and its weights have it as .*32"),
    ("beit", CONFIG, {"hidden_size": -32}, "hidden_size -32; a whole number above 0"),
    ("vit", CONFIG, {"intermediate_size": 10**8}, "none of its weights is as large as that. Look at intermediate_size"),
    ("vit", CONFIG, {"intermediate_size": 96}, "another shape, 96.*, and its weights have it as 64.* Look at intermediate_size"),
    ("dinov2", CONFIG, {"mlp_ratio": 3}, "another shape, 96.* Look at intermediate_size or mlp_ratio"),
    ("vit", CONFIG, {"image_size": 0}, "image_size 0; a whole number above 0, or two"),
    ("vit", CONFIG, {"image_size": 48}, "another shape, 1 x 37 x 32, and its weights have it as 1 x 10 x 32. Look at image_size"),
    ("vit", CONFIG, {"image_size": 10**6}, "Look at image_size and patch_size"),
    ("vit", CONFIG, {"image_size": [24, 24, 24]}, r"image_size \[24, 24, 24\]; a whole number above 0, or two"),
    ("dinov2", CONFIG, {"image_size": 4}, "image_size 4 and patch_size 8; images of at least one patch"),
    ("vit", CONFIG, {"image_size": 25}, "pictures of 24 x 24 pixels, but this vit checkpoint has positions for 25 x 25"),
    ("vit", CONFIG, {"patch_size": [4, 4]}, "of another shape"),
    ("beit", CONFIG, {"patch_size": [4, 4]}, "no model can be built as config.json says"),
    ("vit", CONFIG, {"patch_size": [8]}, r"patch_size \[8\]; a whole number above 0, or two"),
    ("clip", CONFIG, {"vision_config.patch_size": 0}, "vision_config.patch_size 0"),
    ("vit", CONFIG, {"num_channels": 1}, "another shape, 32 x 1 x 8 x 8, .* Look at hidden_size, num_channels and patch_size"),
    ("dinov2", CONFIG, {"num_channels": 4}, "another shape, 32 x 4 x 8 x 8"),
    ("vit", CONFIG, {"layer_norm_eps": NAN}, "layer_norm_eps nan; a number from 0 to 1"),
    ("beit", CONFIG, {"layer_norm_eps": -1.0}, "layer_norm_eps -1.0; a number from 0 to 1"),
    ("clip", CONFIG, {"vision_config.layer_norm_eps": "x"}, "vision_config.layer_norm_eps 'x'; a number from 0 to 1"),
    ("vit", CONFIG, {"attention_probs_dropout_prob": 2.0}, "attention_probs_dropout_prob 2.0; a number from 0 to 1"),
    ("vit", CONFIG, {"hidden_act": "nope"}, "hidden_act 'nope'; the name of an activation"),
    ("vit", CONFIG, {"qkv_bias": False}, "12 weights for which .* such as vit.layers.0.attention.k_proj.bias"),
    ("beit", CONFIG, {"use_relative_position_bias": False}, "weights for which .*relative_position_bias"),
    ("beit", CONFIG, {"use_mean_pooling": None}, "use_mean_pooling"),
    ("dinov2-registers", CONFIG, {"num_register_tokens": -1}, "num_register_tokens -1; a whole number, 0 or more"),
    ("dinov2-registers", CONFIG, {"num_register_tokens": 5}, "another shape, 1 x 5 x 32, .* Look at num_register_tokens"),
    ("vit", CONFIG, {"id2label": named(1, 2, 3, 4, 5, 6, 7)}, "id2label .*numbered from 0 without holes"),
    ("vit", CONFIG, {"id2label": named(0, 1, 2, 4, 5, 6, 7)}, "id2label .*numbered from 0 without holes"),
    ("clip", CONFIG, {"id2label": named(-1, 0, 1, 2, 3, 4, 5)}, "id2label .*numbered from 0 without holes"),
    ("vit", CONFIG, {"id2label": named(*range(6))}, "classifier.* of another shape, 6.* as 7.* Look at id2label"),
    ("deit", CONFIG, {"id2label": named(*range(8))}, "classifier.* of another shape, 8.* as 7.* Look at id2label"),
    ("vit", CONFIG, {"id2label": {}}, "weights for which .* such as classifier"),
    ("vit", CONFIG, {"id2label": GONE, "label2id": GONE}, "classifier.* of another shape, 2.* Look at id2label"),
    ("vit", CONFIG, {"id2label": NAMES[:7]}, "id2label .*; a name for each class"),
    ("vit", CONFIG, {"id2label": dict.fromkeys("0123456")}, "id2label .*; a name for each class"),
    ("vit", CONFIG, {"id2label": {"x": "a"}}, "id2label .*; a name for each class"),
    ("vit", CONFIG, {"model_type": "bert"}, "names ViTForImageClassification but has model_type 'bert'; 'vit' is expected"),
    ("vit", CONFIG, {"model_type": ["vit"]}, r"is of type \['vit'\]"),
    ("vit", CONFIG, {"architectures": "ViTModel"}, "architectures 'ViTModel'; a list of class names"),
    ("vit", CONFIG, {"architectures": [None]}, r"architectures \[None\]; a list of class names"),
    ("clip", CONFIG, {"vision_config": 5}, "cannot read the config"),
    ("vit", CONFIG, "[]", "is not a JSON object"),
    ("vit", PROCESSOR, {"size": square(56)}, "pictures of 56 x 56 pixels, but this vit checkpoint has positions for 24 x 24"),
    ("deit", PROCESSOR, {"size": square(12)}, "pictures of 12 x 12 pixels, but this deit checkpoint"),
    ("clip", PROCESSOR, {"size": {"height": 24, "width": 48}}, "pictures of 24 x 48 pixels"),
    ("beit", PROCESSOR, {"size": {"shortest_edge": 24}}, "pictures of 24 x 36 pixels"),
    ("dinov2", PROCESSOR, {"size": square(28)}, "28 x 28 pixels, which patches of 8 x 8 .* don't divide"),
    ("vit", PROCESSOR, {"size": 0}, "has size {'height': 0, 'width': 0}; a size in whole numbers of pixels"),
    ("vit", PROCESSOR, {"size": square(-1)}, "has size .*-1"),
    ("vit", PROCESSOR, {"size": None}, "can't prepare a picture .*size"),
    ("dinov2", PROCESSOR, {"size": square("24")}, "has size .*'24'"),
    ("dinov2", PROCESSOR, {"size": square(10**6)}, "has size .*1000000.*; a size in whole numbers of pixels, 1 to 8192"),
    ("vit", PROCESSOR, {"size": {}}, "cannot be read|can't prepare|pixels"),
    ("dinov2", PROCESSOR, {"do_center_crop": True, "crop_size": square(48)}, "crops .*48.* out of .*24.*the rest would be black"),
    ("vit", PROCESSOR, {"do_center_crop": True, "crop_size": None}, "can't prepare a picture .*crop_size"),
    ("vit", PROCESSOR, {"do_resize": "no"}, "do_resize 'no'; true or false"),
    ("vit", PROCESSOR, {"image_mean": [0.5]}, r"image_mean \(0.5,\); a finite number for each of 3 channels"),
    ("vit", PROCESSOR, {"image_mean": [0.5] * 4}, "image_mean .*; a finite number for each of 3 channels"),
    ("vit", PROCESSOR, {"image_mean": None}, "can't prepare a picture .*image_mean"),
    ("clip", PROCESSOR, {"image_mean": [NAN] * 3}, "image_mean .*nan.*; a finite number"),
    ("dinov2", PROCESSOR, {"image_mean": [100.0] * 3}, "makes values from -200 to -198"),
    ("vit", PROCESSOR, {"image_std": [0.0] * 3}, "image_std .*; a number above 0 for each"),
    ("vit", PROCESSOR, {"image_std": [-1.0] * 3}, "image_std .*; a number above 0 for each"),
    ("vit", PROCESSOR, {"rescale_factor": 0}, "rescale_factor 0; a number above 0"),
    ("vit", PROCESSOR, {"rescale_factor": 1.0}, "makes values from 11 to 497"),
    ("vit", PROCESSOR, {"do_rescale": False}, "makes values from .* Look at do_rescale"),
    ("vit", PROCESSOR, {"resample": 99}, "resample 99; a number from 0 to 5"),
    ("vit", PROCESSOR, {"image_processor_type": 5}, "cannot be read"),
    ("vit", PROCESSOR, "[]", "cannot be read"),
    ("vit", PROCESSOR, "{", "cannot be read"),
]  # fmt: skip

# What is odd and means something: logits are those of the checkpoint as it was.
SERVED = [
    ("vit", CONFIG, {"patch_size": [8, 8]}),
    ("vit", CONFIG, {"image_size": [24, 24]}),
    ("vit", CONFIG, {"return_dict": False}),
    ("clip", CONFIG, {"return_dict": False, "vision_config.return_dict": False}),
    ("dinov2", CONFIG, {"output_hidden_states": True, "output_attentions": True}),
    ("vit", CONFIG, {"id2label": {str(i): i for i in range(7)}}),
    ("vit", CONFIG, {"id2label": dict.fromkeys("0123456", "same")}),
    ("vit", CONFIG, {"label2id": None}),
    ("vit", CONFIG, {"dtype": "float16"}),
    ("deit", PROCESSOR, {"size": 24}),
    ("beit", PROCESSOR, {"image_mean": 0.5, "image_std": 0.5}),
]


def plain(family):
    with torch.no_grad():
        return tiny.build(family)(tiny.pixels(2)).logits


@pytest.mark.parametrize(("family", "file", "changes", "words"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(mutated, family, file, changes, words):
    folder = mutated(family, file, changes)
    with pytest.raises(RequestError, match=words) as raised:
        VisionModel(str(folder), device="cpu")
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(("family", "file", "changes"), SERVED)
def test_what_is_odd_but_means_something_loads(mutated, family, file, changes, pictures):
    model = VisionModel(str(mutated(family, file, changes)), device="cpu")
    with torch.no_grad(), model.trace(tiny.pixels(2)):
        logits = model.logits.save()
    assert torch.equal(logits, plain(family))
    assert len(model.class_names) == tiny.CLASSES
    assert all(isinstance(name, str) for name in model.class_names)
    assert torch.isfinite(lens(model, pictures(0, 0)).logits).all()


def test_families_of_any_size_take_what_their_processor_makes(mutated, pictures):
    model = VisionModel(str(mutated("dinov2", PROCESSOR, {"size": square(48)})), device="cpu")
    assert model.pixels(pictures(0, 0)).shape == (1, 3, 48, 48)


def test_an_image_size_mends_a_processor_of_another(mutated, pictures):
    folder = mutated("vit", PROCESSOR, {"size": square(56)})
    assert VisionModel(str(folder), image_size=24).pixels(pictures(0, 0)).shape == (1, 3, 24, 24)


def test_pictures_that_nobody_resizes_must_fit(mutated, pictures):
    model = VisionModel(str(mutated("vit", PROCESSOR, {"do_resize": False})), device="cpu")
    assert model.pixels(pictures(0, 0, size=24)).shape == (1, 3, 24, 24)
    with pytest.raises(RequestError, match="pictures of 30 x 30 pixels, but this vit checkpoint has positions for 24"):
        model.pixels(pictures(0, 0, size=30))


def test_changes_to_a_config_are_looked_at_like_the_file(checkpoint):
    folder = str(checkpoint("vit"))
    for changes, words in (
        ({"num_attention_heads": -1}, "config num_attention_heads=-1 was given; a whole number above 0"),
        ({"num_hidden_layers": MANY}, "num_hidden_layers 1000000000, but its weights are 72 tensors"),
        ({"hidden_size": "x"}, "config hidden_size='x' was given"),
    ):
        with pytest.raises(RequestError, match=words):
            VisionModel(folder, config=changes)


def test_a_loaded_model_whose_outputs_have_no_names_is_refused():
    module = tiny.build("vit")
    module.config.return_dict = False
    with pytest.raises(RequestError, match="return_dict=False; set it to True"):
        VisionModel(module)


def test_a_processor_with_another_number_of_channels_is_refused():
    config = hf.ViTConfig(**tiny.BASE, **tiny.LABELS, num_channels=1)
    module = hf.ViTForImageClassification(config).eval()
    assert VisionModel(module)(torch.zeros(1, 1, 24, 24)).logits.shape == (1, 7)
    with pytest.raises(RequestError, match="pictures of 3 channels, but the model reads 1"):
        VisionModel(module, image_processor=tiny.processor())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_args.depth": MANY}, "model_args.depth 1000000000, but its weights are"),
        ({"model_args.depth": 1}, "weights for which .* such as blocks.1"),
        ({"model_args.embed_dim": 96}, "of another shape"),
        ({"model_args.num_heads": -1}, "model_args.num_heads -1; a whole number above 0"),
        ({"pretrained_cfg.mean": [0.5]}, r"pretrained_cfg.mean \[0.5\]; a finite number for each of 3"),
        ({"pretrained_cfg.std": [0, 0, 0]}, "pretrained_cfg.std .*; a number above 0"),
        ({"pretrained_cfg.crop_pct": 0}, "pretrained_cfg.crop_pct 0"),
        ({"pretrained_cfg.input_size": [3, -1, 32]}, "pretrained_cfg.input_size .*; channels, rows and columns"),
        ({"num_classes": "7"}, "num_classes '7'; a whole number"),
        ("[", "not a JSON object"),
    ],
)
def test_configs_of_timm(tmp_path, changes, words):
    small = timm_models.SMALL
    folder = timm_models.write(tmp_path / "m", timm_models.build("vit"), small)
    written(folder, CONFIG, changes)
    with pytest.raises(RequestError, match=words):
        VisionModel(str(folder))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_cfg.vision_cfg.layers": MANY}, "vision_cfg.layers 1000000000, but its weights are"),
        ({"model_cfg.vision_cfg.layers": 2}, "weights for which .* such as visual.transformer.resblocks.2"),
        ({"model_cfg.vision_cfg.width": 64}, "of another shape"),
        ({"model_cfg.vision_cfg.image_size": 48}, "visual.positional_embedding of another shape"),
        ({"model_cfg.vision_cfg.patch_size": 0}, "vision_cfg.patch_size 0"),
        ({"model_cfg.text_cfg.heads": -1}, "text_cfg.heads -1"),
        ({"model_cfg": None}, "without model_cfg"),
        ({"preprocess_cfg.mean": [0.5]}, r"preprocess_cfg.mean \[0.5\]"),
        ({"preprocess_cfg.std": [NAN] * 3}, "preprocess_cfg.std"),
        ({"preprocess_cfg.interpolation": "x"}, "can't make an image transform|interpolation"),
    ],
)
def test_configs_of_open_clip(tmp_path, changes, words):
    folder = test_open_clip.save(tmp_path / "m")
    written(folder, "open_clip_config.json", changes)
    with pytest.raises(RequestError, match=words):
        VisionModel(str(folder))


def test_from_the_command_line_nothing_is_written(mutated, folder, tmp_path):
    bad = mutated("vit", PROCESSOR, {"size": square(56)})
    out = tmp_path / "out"
    status, said = invoke_flat("run", bad, "--data", folder, "--out", out)
    assert status == 2
    assert "pictures of 56 x 56 pixels" in said
    assert not out.exists()
    written(bad, PROCESSOR, {"size": square(24)})
    written(bad, CONFIG, {"num_hidden_layers": MANY})
    picture = next((folder / "test").rglob("*.png"))
    status, said = invoke_flat("lens", bad, picture, "--out", out / "lens.html")
    assert status == 2
    assert "num_hidden_layers 1000000000" in said
    assert not out.exists()
