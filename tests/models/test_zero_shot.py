"""Class names as a classifier: logits of the library that made the model, and all that reads a model reads this one too."""

import sys
from pathlib import Path

import hub_cache
import pytest
import tiny
import torch
import transformers as hf
from command_line import invoke
from torch.nn import functional as F

from clsinterp import VisionModel, lens
from clsinterp.checks.local import check
from clsinterp.errors import RequestError
from clsinterp.models.families import FAMILIES
from clsinterp.models.source import ZOO
from clsinterp.models.text_head import TextHead
from clsinterp.probing.head import Head
from clsinterp.runs.results import read_run

sys.path.insert(0, str(Path(__file__).parent))
import two_towers

KINDS = ("CLIP", "MetaClip2", "Siglip")
CLASSES, TEMPLATES = two_towers.CLASSES, two_towers.TEMPLATES


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Kind -> a folder as on the hub."""
    return {kind: two_towers.save(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_librarys_own_forward(folders, kind):
    pixels, whole = tiny.pixels(6), two_towers.build(kind)
    for template in TEMPLATES:
        for source in (str(folders[kind]), whole):
            model = VisionModel(source, classes=CLASSES, templates=[template], tokenizer=two_towers.tokenizer())
            with torch.no_grad():
                logits = model(pixels).logits
            torch.testing.assert_close(logits, two_towers.hf_logits(whole, pixels, template), rtol=1e-5, atol=1e-5)
    assert model.class_names == CLASSES
    assert repr(model).endswith(f"head text ({len(CLASSES)} classes))")
    assert model.family.name == {"CLIP": "clip-text", "MetaClip2": "metaclip2-text", "Siglip": "siglip-text"}[kind]


def test_several_templates_are_averaged_as_unit_vectors(folders):
    pixels, whole = tiny.pixels(4), two_towers.build("CLIP")
    model = VisionModel(str(folders["CLIP"]), classes=CLASSES, templates=TEMPLATES)
    directions = []
    with torch.no_grad():
        for name in CLASSES:
            unit = []
            for template in TEMPLATES:
                ids = two_towers.tokenizer()(template.replace("{}", name), return_tensors="pt")
                feature = whole.get_text_features(ids["input_ids"]).pooler_output[0]
                unit.append(feature / feature.norm())
            mean = (unit[0] + unit[1]) / 2
            directions.append(mean / mean.norm())
        image = whole.get_image_features(pixels).pooler_output
        expected = whole.logit_scale.exp() * F.normalize(image, dim=-1) @ torch.stack(directions).T
        torch.testing.assert_close(model(pixels).logits, expected, rtol=1e-5, atol=1e-5)


def test_every_row_of_class_names_is_tried():
    rows = {row.name for row in FAMILIES if row.text and row.library == "transformers"}
    assert rows == {f"{kind.lower()}-text" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_check_finds_nothing_wrong(folders, kind):
    model = VisionModel(str(folders[kind]), classes=CLASSES)
    findings = list(check(model))
    assert not [f for f in findings if not f.holds]
    assert "pooled output to the last bit" in " ".join(f.what for f in findings)


def test_attributions_sum_to_the_logits(folders):
    model = VisionModel(str(folders["CLIP"]), classes=CLASSES)
    logits, cache = model.run_with_cache(tiny.pixels(5))
    labels = torch.tensor([0, 1, 2, 0, 1])
    total = cache.logit_attrs(cache.get_full_resid_decomposition(), labels).sum(0) + cache.logit_constant(labels)
    torch.testing.assert_close(total, logits[range(5), labels], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lens_reads_the_last_layer_as_the_model_does(folders, kind):
    """CLIP's CLS token; for SigLIP, patches that are all alike, which attention pooling then gives like one of them."""
    model = VisionModel(str(folders[kind]), classes=CLASSES)
    pixels = tiny.pixels(1)
    if kind != "Siglip":
        view = lens(model, pixels[0])
        torch.testing.assert_close(view.logits[-1, 0], view.output, rtol=1e-4, atol=1e-4)
        return
    token = torch.randn(model.d_model)
    with torch.no_grad(), model.trace(pixels):
        model.blocks[-1].output = token.expand(1, 9, -1).clone()
        expected = model.logits.save()

    def all_alike(value, hook):
        return token.expand_as(value).clone()

    with model.hooks([(f"blocks.{model.n_layers - 1}.hook_resid_post", all_alike)]):
        view = lens(model, pixels[0])
    torch.testing.assert_close(view.logits[-1, 3], expected[0], rtol=1e-4, atol=1e-4)


def test_a_head_divides_by_the_length_of_the_embedding():
    texts, projection, x = F.normalize(torch.randn(3, 5), dim=-1), torch.randn(5, 8), torch.randn(4, 8)
    head = TextHead(texts, 7.0, -2.0, projection)
    expected = 7.0 * F.normalize(x @ projection.T, dim=-1) @ texts.T - 2.0
    torch.testing.assert_close(head(x), expected)
    model = VisionModel("zoo/clip", classes=CLASSES)
    as_read = Head.of(model.family, model.heads)
    rows = torch.randn(2, 3, model.d_model)
    torch.testing.assert_close(as_read(rows), model.heads[0](rows))
    torch.testing.assert_close(as_read.to(torch.device("cpu")).read(rows, "cls"), model.heads[0](rows))


def test_the_hub_layout_is_loaded_by_its_id(folders, tmp_path, monkeypatch):
    hub_cache.add(hub_cache.use(tmp_path, monkeypatch), "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", folders["CLIP"])
    model = VisionModel("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", classes=CLASSES, templates=["{}"])
    expected = two_towers.hf_logits(two_towers.build("CLIP"), tiny.pixels(3), "{}")
    with torch.no_grad():
        torch.testing.assert_close(model(tiny.pixels(3)).logits, expected, rtol=1e-5, atol=1e-5)
    assert model.checkpoint.revision == hub_cache.COMMIT


def test_what_cannot_be_made_of_class_names_is_refused(folders, tmp_path):
    clip = str(folders["CLIP"])
    for options, words in (
        ({"classes": []}, "a list of class names is expected"),
        ({"classes": "cat"}, "a list of class names is expected"),
        ({"classes": ["cat", " "]}, "class 1 has no name"),
        ({"classes": ["cat", "cat"]}, "'cat' twice"),
        ({"classes": ["cat"], "templates": []}, "a list of sentences"),
        ({"classes": ["cat"], "templates": [""]}, "no place for a class name"),
        ({"templates": ["a {}"]}, "templates were given without classes"),
        ({"classes": ["cat"], "classifier": "runs/x"}, "one classifier"),
        ({"classes": ["a very long name " * 4]}, "the text tower reads 40"),
    ):
        with pytest.raises(RequestError, match=words):
            VisionModel(clip, **options)
    with pytest.raises(RequestError, match=r"zoo/vit \(vit\) has no text tower.*head=\"fit\""):
        VisionModel("zoo/vit", classes=CLASSES)
    with pytest.raises(RequestError, match="CLIPVisionModel has no text tower"):
        VisionModel(two_towers.build("CLIP").vision_model, classes=CLASSES)
    with pytest.raises(RequestError, match="it is another model's"):
        VisionModel(two_towers.build("CLIP"), classes=CLASSES, tokenizer=hf.AutoTokenizer.from_pretrained(ZOO / "clip"))
    two_towers.build("CLIP").save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="no tokenizer that can be read"):
        VisionModel(str(tmp_path), classes=CLASSES)
    half = two_towers.build("CLIP")
    del half.text_model
    half.save_pretrained(tmp_path / "half")
    two_towers.tokenizer().save_pretrained(tmp_path / "half")
    with pytest.raises(RequestError, match=r"lacks .* weights of CLIPModel"):
        VisionModel(str(tmp_path / "half"), classes=CLASSES)


def test_a_run_with_a_text_head(tmp_path):
    common = ("run", "zoo/clip", "--data", "zoo", "--limit", "40", "--layers", "0,11", "--quiet")
    code, text = invoke(*common, "--head", "text", "--out", str(tmp_path / "text"))
    assert code == 0, text
    report, curves = read_run(tmp_path / "text")
    rows = {(r["curve"], r["layer"]): r["value"] for r in curves.to_pylist() if r["metric"] == "accuracy"}
    assert (report.facts.family, report.facts.head) == ("clip-text", "text")
    assert rows["intact", None] > 0.75
    assert rows["shuffle", 11] < 0.5 < rows["shuffle", 0]  # the output reads the CLS token, and at the end nothing else
    assert rows["lens", 11] == rows["intact", None]
    for options, words in (
        (["--classes", "a,b"], "it is for --head text"),
        (["--head", "text", "--classes", "a,b"], "classes has 2 names; the data have 10"),
        (["--head", "text", "--template", "photo"], "no place for a class name"),
    ):
        code, text = invoke(*common, *options, "--out", str(tmp_path / "none"))
        assert code == 2
        assert words in " ".join(text.split())
    code, text = invoke("run", "zoo/vit", "--data", "zoo", "--head", "text", "--out", str(tmp_path / "none"))
    assert code == 2
    assert "no text tower" in " ".join(text.split())


def test_zoo_clip_is_as_its_card_says():
    """Both towers in plain transformers, offline."""
    tokens = hf.AutoTokenizer.from_pretrained(ZOO / "clip")
    assert (
        tokens.decode(tokens("a photo of an ankle boot.")["input_ids"][1:-1]).replace(" ", "") == "aphotoofanankleboot."
    )
