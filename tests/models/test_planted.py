"""Models with a known answer: the whole run must return what was built, image by image."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf

from clsinterp import interventions as iv
from clsinterp.checks.plain_sweep import plain_forward, sweep
from clsinterp.errors import RequestError
from clsinterp.models.planted import planted
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.run import run
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.vision_model import VisionModel

pytestmark = pytest.mark.usefixtures("plain_page")
L = 4
LAYERS = tuple(range(-1, L))
PAIRS = [{"probe_from": a, "used_from": b} for b in range(L) for a in range(b + 1)]
PATCHES = [
    {"reads": "patches", **case}
    for case in (
        {"probe_from": None, "used_from": None},
        {"probe_from": 0, "used_from": None},
        {"probe_from": 2, "used_from": None},
        {"probe_from": 1, "used_from": 1},
        {"probe_from": 0, "used_from": 1, "used_until": 2},
        {"probe_from": 0, "used_from": 0, "used_until": 3},
    )
]
FEW = {
    "n_classes": 2,
    "train": (10, 30),
    "test": (28, 84),
}  # class 1 is the majority; a lens without a say answers class 0
RUNS = {
    "used from the first block": ({"probe_from": 0, "used_from": 0}, {}),
    "written, then used": ({"probe_from": 1, "used_from": 3}, {"mode": "derange"}),
    "used where it is written": ({"probe_from": 2, "used_from": 2}, {"seed": 5, "batch_size": 30}),
    "written, never read": ({"probe_from": 1, "used_from": None, "reads": "patches"}, {"mode": "cross_label"}),
    "never in CLS": ({"probe_from": None, "used_from": None, "reads": "patches"}, {}),
    "used for a while": ({"probe_from": 0, "used_from": 1, "used_until": 3, "reads": "patches"}, {}),
    "two classes, one rare": ({"probe_from": 1, "used_from": 2} | FEW, {}),
    "two classes, never used": ({"probe_from": 2, "used_from": None, "reads": "patches"} | FEW, {"mode": "derange"}),
}


def plant(n_layers=L, **case):
    return planted(**{k: v for k, v in case.items() if k not in ("train", "test")}, n_layers=n_layers)


def hits(model, columns, label, donor, constant):
    """Column -> which images are right, from what `planted` says it built; `constant` is the class a blind probe answers."""
    host, same = torch.ones_like(label, dtype=torch.bool), label == label[donor]
    follow = {"host": host, "donor": same, None: label == constant}
    seen = model.used_from if model.reads == "cls" else model.used_until
    found = {}
    for name in columns:
        curve, *layers = re.fullmatch(r"rank_([a-z]+)(?:_(-?\d+))?(?:_(-?\d+))?", name).groups()
        first, second = (None if x is None else int(x) for x in layers)
        if curve == "intact":
            found[name] = host
        elif curve == "shuffle":
            found[name] = follow[model.output_follows(first)]
        elif curve == "donor":
            found[name] = follow["host" if model.output_follows(first) == "donor" else "donor"]
        elif curve == "probe":
            found[name] = follow[model.probe_follows(first)]
        elif curve == "restoration":
            found[name] = follow[model.probe_follows(second, first)]
        else:
            assert curve == "lens"
            found[name] = host if seen is not None and first >= seen else label == 0
    return found


def assert_as_built(model, ranks, label, donor, constant):
    expected = hits(model, [n for n in ranks if n.startswith("rank_")], label, donor, constant)
    pairs = {f"rank_restoration_{i:02d}_{j:02d}" for i in LAYERS for j in LAYERS if j >= i}
    assert {n for n in expected if "restoration" in n} == pairs
    assert [n for n in expected if not torch.equal(ranks[n] == 0, expected[n])] == []


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Name of a case in `RUNS` -> its model and the folder of a finished run."""
    root, made = tmp_path_factory.mktemp("planted"), {}

    def get(name):
        if name not in made:
            case, options = RUNS[name]
            model, here = plant(**case), root / str(len(made))
            model.save(here / "model")
            model.write_images(here / "data", case.get("train", 10), case.get("test", 26))
            request = Request(str(here / "model"), str(here / "data"), layers=LAYERS, **options)
            made[name] = model, run(request, here / "run", resources=Resources("cpu", workers=0))
        return made[name]

    return get


@pytest.mark.parametrize("name", RUNS)
def test_a_run_returns_what_was_built(done, name):
    model, folder = done(name)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["labels"]["how"] == "name"
    images = pq.read_table(folder / "images.parquet")
    ranks = {n: torch.from_numpy(images[n].to_numpy().copy()).long() for n in images.column_names if n != "source"}
    label, donor = ranks["label"], ranks["donor"]
    majority = 1 if model.model.config.num_labels == 2 else label[ranks["rank_probe_-1"] == 0][0]
    assert_as_built(model, ranks, label, donor, majority)
    share = float((label == label[donor]).double().mean())
    assert facts["collision_rate"] == share
    assert (share == 0) == (RUNS[name][1].get("mode") == "cross_label")
    curves = pq.read_table(folder / "curves.parquet").to_pylist()
    accuracy = {(r["curve"], r["layer"]): r["value"] for r in curves if r["metric"] == "accuracy"}
    agreement = {r["layer"]: r["value"] for r in curves if r["curve"] == "agreement"}
    classes = torch.tensor(facts["labels"]["classes"])
    assert facts["floors"] == {"use": share, "availability": max(label.bincount().tolist()) / len(label)}
    chance = 0.75 if model.model.config.num_labels == 2 else 0.25
    assert accuracy["intact", None] == 1
    for layer in LAYERS:
        moved = model.output_follows(layer) == "donor"
        assert accuracy["shuffle", layer] == (share if moved else 1)
        assert accuracy["cost", layer] == pytest.approx(1 - share if moved else 0)
        assert agreement[layer] == (share if moved else 1)
        assert torch.equal(ranks[f"answer_shuffle_{layer:02d}"], classes[label[donor] if moved else label])
        assert accuracy["donor", layer] == (1 if moved else share)
        assert accuracy["probe", layer] == (1 if model.probe_follows(layer) else chance)


@pytest.mark.parametrize("name", RUNS)
def test_verdicts_are_what_was_built(done, name):
    model, folder = done(name)
    onsets = json.loads((folder / "run.json").read_text())["onsets"]
    assert onsets["decodable_from"]["layer"] == model.probe_from
    assert onsets["used_from"]["layer"] == model.used_from
    assert (onsets["decodable_from"]["reason"] is None) == (model.probe_from is not None)
    assert onsets["used_from"]["reason"] is None


@pytest.mark.parametrize("case", [*PAIRS, *PATCHES], ids=str)
def test_the_fork_and_its_plain_twin_return_what_was_built(case):
    model = plant(**case)
    vision = VisionModel(model.model, device="cpu")
    label = torch.arange(16) * 7 % 4
    pixels = model.pixels(label.tolist())
    stats = RidgeStats.zeros(len(LAYERS), vision.d_model, 4)
    stats.update(capture(vision, pixels, LAYERS)[0], label, torch.arange(16))
    readers = Readers(Head.of(vision.family, vision.heads), probes=solve(stats), probed=LAYERS)
    donor = iv.permute(16, 3)
    for ranks in (
        fork(vision, pixels, label, donor, readers, layers=LAYERS),
        sweep(vision, pixels, label, donor, readers, layers=LAYERS),
    ):
        assert_as_built(model, ranks, label, donor, label[ranks["rank_probe_-1"] == 0][0])


@pytest.mark.parametrize(("reads", "until"), [("cls", None), ("patches", 4)])
def test_ranges_hold_codes_and_nothing_else(reads, until):
    """What is said of the coordinates, to the rounding of float32; patches keep a part of what they are made to forget."""
    model = planted(1, 3, used_until=until, reads=reads, n_classes=3)
    label = torch.tensor([2, 0, 1])
    states, _, _ = plain_forward(VisionModel(model.model, device="cpu"), model.pixels(label.tolist()))
    code = torch.eye(3)[label] - 1 / 3
    for layer, h in states.items():
        held, used, sent = 1 <= layer < 3, layer >= 3, until is not None and layer >= until
        for token, kind, says in ((0, 1.0, False), (1, -1.0, True), (4, -1.0, True)):
            assert h[:, token, :2].tolist() == [[kind, -kind]] * 3
            for place, there in enumerate((says, held, used, sent)):
                if token == 0 or (place, used) != (1, True):
                    found = h[:, token, 2 + 3 * place : 5 + 3 * place]
                    torch.testing.assert_close(found, code * there, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [PAIRS[0], PAIRS[7], *PATCHES], ids=str)
def test_patches_carry_the_label_where_cls_does_not(case):
    """Swapped patches give the donor's answer wherever a swapped CLS token leaves the host's, and the other way round."""
    model = plant(**case)
    vision = VisionModel(model.model, device="cpu")
    label, donor = torch.arange(12) % 4, iv.derange(12, 0)
    readers = Readers(Head.of(vision.family, vision.heads))
    ranks = fork(vision, model.pixels(label.tolist()), label, donor, readers, layers=LAYERS, group="patches")
    for layer in LAYERS:
        follows = label if model.output_follows(layer) == "donor" else label[donor]
        assert torch.equal(ranks[f"rank_shuffle_{layer:02d}"] == 0, follows == label)


@pytest.mark.parametrize("case", [PAIRS[0], PAIRS[7], *PATCHES], ids=str)
@pytest.mark.parametrize("replace", [iv.zero, iv.mean])
def test_other_replacements_matter_at_the_same_layers(case, replace):
    model = plant(**case)
    vision = VisionModel(model.model, device="cpu")
    label = torch.arange(12) % 4
    readers = Readers(Head.of(vision.family, vision.heads))
    ranks = fork(vision, model.pixels(label.tolist()), label, replace, readers, layers=LAYERS)
    for layer in LAYERS:
        right = (ranks[f"rank_shuffle_{layer:02d}"] == 0).double().mean()
        assert right == 1 if model.output_follows(layer) == "host" else right < 1


@pytest.mark.parametrize("case", [{"n_classes": 2, "grid": 1}, {"n_classes": 11, "n_layers": 2, "grid": 3}], ids=str)
@pytest.mark.parametrize("reads", ["cls", "patches"])
def test_sizes_and_saving(case, reads, tmp_path):
    before = torch.random.get_rng_state()
    model = planted(0, 0, reads=reads, **case)
    assert torch.equal(torch.random.get_rng_state(), before)
    label = torch.arange(22) % case["n_classes"]
    pixels = model.pixels(label.tolist())
    assert len(pixels.flatten(1).unique(dim=0)) == 22
    _, _, logits = plain_forward(VisionModel(model.model, device="cpu"), pixels)
    assert torch.equal(logits.argmax(-1), label)
    first, second = logits.topk(2).values.unbind(-1)
    assert (first - second > 5).all()
    model.save(tmp_path)
    again = VisionModel(str(tmp_path), device="cpu")
    assert again.class_names == model.class_names
    assert torch.equal(plain_forward(again, pixels)[2], logits)
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = model.image(1, (0, 1))
    assert torch.equal(processor(images=image, return_tensors="pt")["pixel_values"][0], pixels[1])


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ({"probe_from": 0, "used_from": None}, 'reads="patches"'),
        ({"probe_from": 0, "used_from": 6}, "used_from=6 was given; the blocks are 0 to 5"),
        ({"probe_from": -1, "used_from": 2}, "probe_from=-1 was given; the blocks are 0 to 5"),
        ({"probe_from": 3, "used_from": 2}, "probe_from=3 was given with used_from=2; .* 0 to 2 fits"),
        ({"probe_from": None, "used_from": 2}, "probe_from=None was given with used_from=2"),
        ({"probe_from": 0, "used_from": 2, "used_until": 3}, "used to the end"),
        ({"probe_from": 0, "used_from": None, "used_until": 3, "reads": "patches"}, "without used_from"),
        ({"probe_from": 0, "used_from": 5, "reads": "patches"}, "used_until=5 is not after used_from=5"),
        ({"probe_from": 0, "used_from": 0, "n_classes": 1}, "1 classes were given"),
        ({"probe_from": 0, "used_from": 0, "reads": "registers"}, "cls or patches is expected"),
    ],
)
def test_models_that_cannot_be(case, text):
    with pytest.raises(RequestError, match=text):
        planted(**case)


def test_images_are_asked_for_once_for_all_or_class_by_class(tmp_path):
    with pytest.raises(RequestError, match="2 numbers of test images were given; one, or one for each of 4 classes"):
        planted(0, 0).write_images(tmp_path, 3, (1, 2))
    assert not list(tmp_path.iterdir())
