"""The lens of one image: every number against the same forward in plain torch and Hugging Face's own modules."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from command_line import invoke
from PIL import Image

import clsinterp
from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError
from clsinterp.figures.layout import in_column
from clsinterp.probing.head import Head
from clsinterp.probing.metrics import ranks
from clsinterp.runs.results import read_run
from clsinterp.views.grid import grid_figure
from clsinterp.views.intervention import Intervention
from clsinterp.views.lens import lens
from clsinterp.views.maps import QUANTITIES, panels, values
from clsinterp.views.table import attention_table, similarity_table
from clsinterp.vision_model import VisionModel

READ = (*tiny.FIVE, "beit-mean", "dinov2-registers", "deit-no-teacher", "siglip")


def by_hand(model, h):
    """Lens logits of tokens h (.., token, d), with the modules and the layout of each family written out."""
    hf, zeros = model._module, torch.zeros_like
    match model.family.name:
        case "vit" | "deit-no-teacher":
            backbone = hf.vit if hasattr(hf, "vit") else hf.deit
            return hf.classifier(backbone.layernorm(h))
        case "deit":
            n = hf.deit.layernorm(h)
            out = hf.cls_classifier(n)
            out[..., 1, :] = hf.distillation_classifier(n[..., 1, :])
            return out
        case "beit":
            return hf.classifier(hf.beit.layernorm(h))
        case "beit-mean":
            return hf.classifier(hf.beit.pooler.layernorm(h))
        case "dinov2" | "dinov2-registers":
            n = (hf.dinov2 if hasattr(hf, "dinov2") else hf.dinov2_with_registers).layernorm(h)
            first_patch = 1 if model.family.name == "dinov2" else 4
            prefix = hf.classifier(torch.cat([n, zeros(n)], -1))
            patches = hf.classifier(torch.cat([zeros(n), n], -1))
            return torch.cat([prefix[..., :first_patch, :], patches[..., first_patch:, :]], -2)
        case "clip":
            return hf.classifier(h)
        case "siglip":
            return hf.classifier(hf.vision_model.post_layernorm(h))
    raise AssertionError(model.family.name)


def stream(states, row=0):
    return torch.stack([states[i][row] for i in range(tiny.LAYERS)])


@pytest.mark.parametrize("family", READ)
def test_the_intact_view_is_the_classifier_on_every_token(model, family):
    m, x = model(family), tiny.pixels(1)
    view = lens(m, x[0])
    states, _, logits = plain_forward(m, x)
    torch.testing.assert_close(view.logits, by_hand(m, stream(states)).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view.output, logits[0], atol=1e-5, rtol=1e-5)
    assert len(view.tokens) == len(view.groups) == view.logits.shape[1]
    assert view.grid == (3, 3)
    assert view.tokens[view.n_prefix] == "patch 0"
    assert view.class_names == tuple(tiny.NAMES.values())


@pytest.mark.parametrize("family", [*tiny.FIVE, "dinov2-registers"])
def test_attention_is_that_of_the_eager_model(model, family):
    m, x = model(family), tiny.pixels(1)
    eager = tiny.build(family)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = eager(x, output_attentions=True).attentions
    wanted = torch.stack([p[0, :, 0] for p in patterns])
    torch.testing.assert_close(lens(m, x[0]).attention, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [*tiny.FIVE, "dinov2-registers"])
def test_similarity_is_the_angle_to_the_cls_token_after_what_was_done(model, family):
    m, x = model(family), tiny.pixels(2)
    after = plain_forward(m, x)[0]  # of every image, the one that gives its token too
    for intervention in (None, Intervention("swap", 1, x[1:])):
        view = lens(m, x[0], intervention)
        if intervention is None:
            tokens = stream(after).detach().double()
        else:  # where it is put in: the other image's token among one's own
            tokens = stream(after).detach().double()[1:2]
            tokens[0, 0] = stream(after, 1).detach().double()[1, 0]
        length = tokens.norm(dim=-1)
        wanted = (tokens @ tokens[:, 0, :, None])[..., 0] / (length * length[:, :1])
        found = view.similarity if intervention is None else view.similarity[1:2]
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(values(view, "similarity"), view.similarity)


@pytest.mark.parametrize("family", tiny.FIVE)
@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("replace", ["swap", "mean", "zero", "noise"])
def test_an_intervention_is_the_hooked_forward(model, family, layer, replace):
    m, x = model(family), tiny.pixels(4)
    view = lens(m, x[0], Intervention(replace, layer, None if replace == "zero" else x[1:], seed=3))
    new = {
        "swap": lambda t: t[[1, 1, 2, 3]],
        "mean": lambda t: t[1:].mean(0).expand_as(t),
        "zero": lambda t: t * 0,
    }
    if replace == "noise":
        from clsinterp.interventions import noise

        new["noise"] = lambda t: noise(3)(t[1:])[:1].expand_as(t)
    states, _, logits = plain_forward(m, x, layer, 0, new[replace])
    torch.testing.assert_close(view.logits, by_hand(m, stream(states)).detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(view.output, logits[0], atol=1e-4, rtol=1e-4)
    if layer == 1:
        assert (view.logits[1] - lens(m, x[0]).logits[1]).abs()[0].max() > 1e-3, "the CLS token was not replaced"


def test_reference_tokens_do_what_reference_images_do(model):
    m, x = model("vit"), tiny.pixels(4)
    states, _, _ = plain_forward(m, x[1:])
    for replace in ("swap", "mean", "noise"):
        images = lens(m, x[0], Intervention(replace, 2, x[1:]))
        tokens = lens(m, x[0], Intervention(replace, 2, states[2][:, 0]))
        torch.testing.assert_close(images.logits, tokens.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["deit", "dinov2"])
def test_turning_read_outs_off_changes_the_output_alone(model, family):
    m, x = model(family), tiny.pixels(1)
    intact, view = lens(m, x[0]), lens(m, x[0], Intervention(cls_only=True))
    assert torch.equal(view.logits, intact.logits)
    # the CLS read-out of the last layer is what the lens reads on the CLS token there
    torch.testing.assert_close(view.output, intact.logits[-1, 0], atol=1e-5, rtol=1e-5)
    assert (view.output - intact.output).abs().max() > 1e-3


@pytest.mark.parametrize("family", READ)
def test_what_a_family_cannot_do_is_refused_with_the_reason(model, family):
    m, x = model(family), tiny.pixels(2)
    if family not in ("deit", "dinov2", "dinov2-registers"):
        with pytest.raises(RequestError, match=r"nothing to turn off|does not read the CLS token"):
            lens(m, x[0], Intervention(cls_only=True))
    if family == "siglip":
        with pytest.raises(RequestError, match="no CLS token"):
            lens(m, x[0], Intervention("zero"))
        with pytest.raises(RequestError, match="no CLS attention"):
            values(lens(m, x[0]), "attention")


def test_wrong_requests_name_what_was_given(model, tmp_path, checkpoint):
    m, x = model("vit"), tiny.pixels(2)
    view = lens(m, x[0])
    for call, text in (
        (lambda: lens(m, x), "2 images were given"),
        (lambda: lens(m, x[0], Intervention("swap", 9, x)), "layer 9"),
        (lambda: lens(m, x[0], Intervention("swap", 1)), "reference"),
        (lambda: lens(m, x[0], Intervention("melt", 1)), "'melt'"),
        (lambda: lens(m, x[0], Intervention("swap", 1, torch.zeros(1, 3, 16, 16))), r"\(3, 16, 16\)"),
        (lambda: values(view, "beauty"), "'beauty'"),
        (lambda: values(view, "logit", 99), "class 99"),
        (lambda: values(view, "attention", head=7), "head 7"),
        (lambda: view.figure(layer=12), "layer 12"),
    ):
        with pytest.raises(RequestError, match=text):
            call()
    headless = VisionModel(tiny.BUILD["dinov3"]().eval(), image_processor=tiny.processor())
    with pytest.raises(RequestError, match="no classifier"):
        lens(headless, x[0])
    head = Head((torch.randn(7, 64),), (torch.zeros(7),), ("cls", "patch_mean"), own=False)
    assert lens(headless, x[0], head=head).logits.shape == (tiny.LAYERS, 12, 7)


def test_quantities_are_what_they_are_called(model):
    view = lens(model("dinov2"), tiny.pixels(1)[0])
    c = 4
    for layer in range(tiny.LAYERS):
        for token in range(len(view.tokens)):
            logits = view.logits[layer, token].double().tolist()
            p = [math.exp(z) for z in logits]
            p = [v / sum(p) for v in p]
            rank = sum(z > logits[c] for z in logits)
            wanted = {
                "probability": p[c],
                "logit": logits[c],
                "rank": rank,
                "identifiability": 1 - rank / 7,
                "top1": max(range(7), key=logits.__getitem__),
                "entropy": -sum(v * math.log2(v) for v in p),
            }
            for quantity, value in wanted.items():
                assert float(values(view, quantity, c)[layer, token]) == pytest.approx(value, abs=1e-5), quantity
    assert torch.equal(values(view, "attention", head=1), view.attention[:, 1])
    torch.testing.assert_close(values(view, "attention").sum(-1), torch.ones(tiny.LAYERS))


@pytest.mark.parametrize("family", READ)
def test_figure_and_table_say_whose_part_of_the_classifier_reads_a_token(model, family):
    view = lens(model(family), tiny.pixels(1)[0])
    readers = {(row["group"], row["read_by"]) for row in view.table().to_pylist()}
    parts = {"deit": {"cls": "cls", "distill": "distill", "patches": "cls"},
             "clip": {"cls": "patch_mean", "patches": "patch_mean"}, "beit-mean": {"cls": "patch_mean", "patches": "patch_mean"},
             "dinov2": {"cls": "cls", "patches": "patch_mean"}, "siglip": {"patches": "patch_mean"},
             "deit-no-teacher": {"cls": "cls", "distill": "cls", "patches": "cls"},
             "dinov2-registers": {"cls": "cls", "registers": "cls", "patches": "patch_mean"}}  # fmt: skip
    assert readers == set(parts.get(family, {"cls": "cls", "patches": "cls"}).items())
    borrowed = "on the CLS token the lens applies what reads patches" in view.figure().layout.title.text
    assert borrowed == (family in ("clip", "beit-mean"))


def test_the_tables_become_data_frames(model):
    view = clsinterp.lens(model("dinov2-registers"), tiny.pixels(1)[0])
    frame, table = view.table().to_pandas(), view.table()
    assert list(frame.columns) == table.column_names
    for name in ("token", "group", "read_by", "class", "logit"):
        assert frame[name].tolist() == table[name].to_pylist()
    assert len(attention_table(view).to_pandas()) == view.attention.numel()


def test_the_table_holds_every_number(model):
    view = lens(model("deit"), tiny.pixels(1)[0])
    rows = view.table().to_pylist()
    assert len(rows) == view.logits.numel()
    for row in rows[:: len(rows) // 40]:
        token = view.tokens.index(row["token"])
        assert row["logit"] == pytest.approx(float(view.logits[row["layer"], token, row["class_index"]]))
        assert row["rank"] == int(values(view, "rank", row["class_index"])[row["layer"], token])
        assert row["class"] == view.class_names[row["class_index"]]
        place = token - view.n_prefix
        assert (row["row"], row["column"]) == ((None, None) if place < 0 else divmod(place, 3))
    attention = attention_table(view).to_pylist()
    assert attention[-1]["attention"] == pytest.approx(float(view.attention[-1, -1, -1]))
    assert len(attention) == view.attention.numel()
    similarity = similarity_table(view).to_pylist()
    assert similarity[-1]["similarity"] == pytest.approx(float(view.similarity[-1, -1]))
    assert len(similarity) == view.similarity.numel()


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_figure_holds_the_numbers_of_every_layer(model, quantity):
    m, x = model("deit"), tiny.pixels(2)
    view = clsinterp.lens(m, x[0])
    fig = view.figure(quantity, class_index=2)
    (slider,) = fig.layout.sliders
    assert len(slider.steps) == tiny.LAYERS
    (panel,) = panels([view], quantity, 2)
    for layer, step in enumerate(slider.steps):
        patches, prefix = step.args[0]["z"]
        flat = [z for row in (*prefix, *patches) for z in row]
        assert flat == pytest.approx(panel.z[layer].tolist())
        labels = [cell[2] for row in (*step.args[0]["customdata"][1], *step.args[0]["customdata"][0]) for cell in row]
        assert labels == panel.labels[layer]
        assert set(step.args[1].values()) == {layer}  # where the line in the trajectory goes
    if quantity == "logit":
        assert panel.labels[1][3] == f"{float(view.logits[1, 3, 2]):.3f}"
    top = fig.data[0].customdata[1][2][3]  # patch 5 at the last layer
    probability, index = view.logits[-1, 2 + 5].softmax(-1).topk(5)
    assert f"{view.class_names[int(index[0])]}  {100 * float(probability[0]):.1f}%" in top


def test_the_difference_is_intervened_minus_intact(model):
    m, x = model("vit"), tiny.pixels(2)
    views = [lens(m, x[0]), lens(m, x[0], Intervention("swap", 1, x[1:]))]
    intact, intervened, difference = panels(views, "logit", 3)
    torch.testing.assert_close(difference.z, views[1].logits[..., 3] - views[0].logits[..., 3])
    assert intact.scale == intervened.scale
    assert difference.scale.low == -difference.scale.high
    one, other, changed = panels(views, "top1")
    assert torch.equal(changed.z.bool(), views[0].logits.argmax(-1) != views[1].logits.argmax(-1))
    assert one.scale == other.scale


def test_names_are_escaped_and_pages_need_no_server(tmp_path):
    module = tiny.build("vit")
    module.config.id2label = {i: f"<img src=x onerror=alert({i})>" for i in range(tiny.CLASSES)}
    view = lens(VisionModel(module, image_processor=tiny.processor()), tiny.pixels(1)[0])
    from clsinterp.figures.files import save_figure

    save_figure([view.figure("top1")], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    data = text[text.rindex("Plotly.newPlot") :]
    assert "<img" not in data
    assert "\\u003cimg" not in data, "plotly would read the name as HTML"
    assert "<script src" not in text


def test_the_image_is_shown_as_the_model_sees_it():
    m = VisionModel(tiny.build("vit"), image_processor=tiny.processor())
    image = Image.new("RGB", (60, 30), (200, 100, 50))
    shown = lens(m, image).image
    assert shown.size == (tiny.SIZE, tiny.SIZE)
    assert all(abs(a - b) <= 1 for a, b in zip(shown.getpixel((5, 5)), (200, 100, 50), strict=True))


def test_hovering_over_the_widget_reaches_python(model):
    view = lens(model("deit"), tiny.pixels(1)[0])
    heard = []
    widget = view.widget("logit", class_index=1, layer=2, on_hover=heard.append)
    # What plotly.js sends to Python when the pointer is over row 1, column 2 of the patches.
    widget._js2py_pointsCallback = {
        "event_type": "plotly_hover",
        "points": {"trace_indexes": [0], "point_indexes": [[1, 2]], "xs": [2], "ys": [1]},
        "device_state": None,
        "selector": None,
    }
    assert heard == [{"token": 7, "name": "patch 5", "label": f"{float(view.logits[2, 7, 1]):.3f}"}]


def test_the_command_writes_one_page_for_several_images(checkpoint, folder, tmp_path):
    images = sorted((folder / "test" / "class_0").iterdir())[:2]
    out = tmp_path / "lens.html"
    code, text = invoke("lens", checkpoint("vit"), *images, "--out", out, "--quantity", "entropy")
    assert code == 0, text
    page = out.read_text()
    assert page.count("Plotly.newPlot(") >= 2
    assert all(path.name in page for path in images)
    (tmp_path / "bad.png").write_bytes(b"not an image")
    for bad, said in (
        (["lens", checkpoint("vit"), tmp_path / "none.png"], "none.png"),
        (["lens", checkpoint("vit"), tmp_path / "bad.png"], "bad.png"),
        (["lens", checkpoint("vit"), images[0], "--class", "unicorn"], "unicorn"),
        (["lens", checkpoint("vit"), images[0], "--quantity", "joy"], "joy"),
        (["lens", checkpoint("vit"), images[0], "--head", "9", "--quantity", "attention"], "head 9"),
    ):
        code, text = invoke(*bad)
        assert code == 2
        assert said in text
    pq.write_table(lens(VisionModel(tiny.build("vit")), tiny.pixels(1)[0]).table(), tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").num_rows == tiny.LAYERS * 10 * tiny.CLASSES


def run_on(source, folder, out, *options):
    """A small run of `source` on the images of `folder`; its folder."""
    splits = ["--train-split", "train", "--test-split", "test", "--batch-size", "16", "--workers", "0"]
    code, text = invoke("run", source, "--data", folder, *splits, *options, "--out", out)
    assert code == 0, text
    return out


@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize("family", tiny.FIVE)
def test_a_run_s_fitted_head_becomes_the_classifier(checkpoint, folder, tmp_path, family):
    source = checkpoint(family)
    run = run_on(source, folder, tmp_path / "run", "--layers", "0,3", "--head", "fit")
    model = VisionModel(str(source), classifier=run, device="cpu")
    manifest = read_run(run).report.manifest
    assert model.class_names == manifest.class_names
    _, test = open_data(str(folder), "train", "test")
    rows = pq.read_table(run / "images.parquet")
    images = [test.image(i) for i in range(len(test))]
    logits = model(images).logits
    labels = torch.tensor(test.labels)
    assert ranks(logits, labels).tolist() == rows["rank_intact"].to_pylist()
    view = lens(model, images[0])
    assert view.class_names == tuple(manifest.class_names)
    torch.testing.assert_close(view.output, logits[0].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("plain_page")
def test_a_fitted_head_has_to_fit(checkpoint, folder, tmp_path):
    run = run_on(checkpoint("dinov2"), folder, tmp_path / "run", "--layers", "3", "--head", "fit")
    own = run_on(checkpoint("dinov2"), folder, tmp_path / "own", "--layers", "3")
    picture = next(Path(folder).rglob("*.png"))
    for source, where, said in (
        (checkpoint("vit"), run, "is a run of"),
        (checkpoint("dinov2"), own, "used the classifier of"),
        (checkpoint("dinov2"), tmp_path / "nowhere", "is not a finished run folder"),
    ):
        code, text = invoke("lens", source, picture, "--classifier", where, "--out", tmp_path / "page.html")
        assert code == 2, text
        assert said in " ".join(text.split())
    code, text = invoke("lens", checkpoint("dinov2"), picture, "--classifier", run, "--out", tmp_path / "page.html")
    assert code == 0, text


def test_a_static_image_has_no_slider_and_says_its_layer(model):
    view = clsinterp.lens(model("vit"), tiny.pixels(1)[0])
    fig = view.figure(layer=2, slider=False)
    assert not fig.layout.sliders
    assert ", layer 2<br>" in fig.layout.title.text


def test_small_maps_hold_every_layer(model):
    m, x = model("deit"), tiny.pixels(2)
    views = [clsinterp.lens(m, x[0]), clsinterp.lens(m, x[0], Intervention("swap", 1, reference=x[1:]))]
    for given in (views[:1], views):
        fig = grid_figure(given, class_index=3)
        panel = panels(given, "probability", 3)[-1]
        assert fig.layout.title.text == ("difference: " if given is views else "") + panel.scale.title
        assert len(fig.data) == tiny.LAYERS
        for layer, one in enumerate(fig.data):
            found = torch.tensor(one.z).flatten()
            torch.testing.assert_close(found, panel.z[layer, panel.view.n_prefix :], check_dtype=False)
        said = [a.text for a in fig.layout.annotations]
        assert said == [f"layer {i}, CLS {panel.labels[i][0]}" for i in range(tiny.LAYERS)]


def test_the_lens_command_swaps_and_shows_layers(checkpoint, pictures, tmp_path):
    for name, i in (("a", 0), ("b", 1)):
        pictures(i, i).save(tmp_path / f"{name}.png")
    out = tmp_path / "lens.html"
    given = ("lens", checkpoint("vit"), tmp_path / "a.png", "--out", out)
    swap = ("--swap-with", tmp_path / "b.png", "--at", 1)
    for more, said in ((("--grid",), "layer 3, CLS"), (swap, "CLS token replaced"), (("--grid", *swap), "difference")):
        code, text = invoke(*given, *more)
        assert (code, said in out.read_text()) == (0, True), text
        out.unlink()
    for more in (("--grid", "--layer", 1), ("--at", 1), ("--layer", 99), (*swap[:2], "--at", 99)):
        code, text = invoke(*given, *more)
        assert (code, out.exists()) == (2, False), text


def test_who_reads_a_token_is_said_by_the_model_that_was_loaded_not_by_its_familys_name():
    """timm's rows are one for many poolings."""
    import timm

    small = {"img_size": 24, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 7}
    for pool, reader in (("token", "cls"), ("avg", "patch_mean")):
        module = timm.create_model("vit_tiny_patch16_224", pretrained=False, global_pool=pool, **small).eval()
        view = lens(VisionModel(module), torch.zeros(3, 24, 24))
        assert view.read_by["cls"] == reader


def plot(figure):
    """Width and height of what is inside the margins."""
    margin = figure.layout.margin
    return (figure.layout.width or 1200) - margin.l - margin.r, figure.layout.height - margin.t - margin.b


def test_on_paper_the_title_is_the_caption_and_maps_keep_room(model, pictures):
    view = lens(model("vit"), pictures(0, 0))
    for figure in (view.figure(slider=False), grid_figure([view])):
        placed, caption = in_column(figure)
        assert not placed.layout.title.text
        assert caption.split(". ")[0] in figure.layout.title.text
        (wide, high), (wide_before, high_before) = map(plot, (placed, figure))
        assert high / wide == pytest.approx(high_before / wide_before, rel=0.01)  # maps keep their shape
        assert placed.layout.height < figure.layout.height
        with pytest.raises(RequestError, match="at least 5"):
            in_column(figure, 3.3)
