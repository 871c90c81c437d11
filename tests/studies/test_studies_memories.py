"""Sublayers as memories, patches by probes, class and context tokens: naive twins, and models whose answer was built in."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.data.sources import open_data
from clsinterp.models.planted import planted
from clsinterp.studies.causality import context
from clsinterp.studies.causality.setup import CountingSetup
from clsinterp.studies.class_space import cuts, memories
from clsinterp.studies.class_space import reading as space
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, one, pick
from clsinterp.vision_model import VisionModel


@pytest.fixture(scope="module")
def setup(model, folder):
    """family -> setup with 6 train and 6 test images."""

    def get(family: str) -> Setup:
        train, test = open_data(str(folder), limit=6)
        return Setup.of(family, model(family), train, test, batch_size=6, workers=0)

    return get


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model that fetches the label into what the classifier reads in block 2 and nowhere else."""
    p = planted(2, 2, n_layers=4)
    data = p.write_images(tmp_path_factory.mktemp("planted"), 4, 3)
    m = VisionModel(p.model, image_processor=p.processor)
    return Setup.of("planted", m, *open_data(str(data)), batch_size=12, workers=0)


@pytest.mark.parametrize("family", tiny.FIVE)
@torch.no_grad()
def test_key_value_agreement_is_a_loop_over_tokens(setup, family):
    s = setup(family)
    batch = next(s.batches(s.test))
    found = memories.used(s, batch, top=3)
    names = [f"blocks.2.{name}" for name in memories.PLACES.values()]
    cache = s.model.run_with_cache(batch.pixels, names)[1]
    parts = ["cls"] + ["patches"] * 9
    places = [0, *range(s.model.layout.n_prefix, s.model.layout.n_prefix + 9)]
    other = found.by_chance
    for c, (component, name) in enumerate(memories.PLACES.items()):
        active = cache[f"blocks.2.{name}"].flatten(2)
        values = memories.value_vectors(s, 2, component)
        for n in range(3):
            for t, place in enumerate(places):
                mine = set(active[n, place].argsort(descending=True)[:3].tolist())
                embeddings = space.class_embeddings(s, parts[t])
                product = torch.stack([embeddings @ v for v in values.T], dim=1)
                best = [set(row.argsort(descending=True)[:3].tolist()) for row in product]
                target = int(batch.targets[n])
                assert bool(found.agrees[c, 2, n, t]) == bool(mine & best[target])
                assert bool(other[c, 2, n, t]) in {bool(mine & b) for k, b in enumerate(best) if k != target}
                expected = {int(product[:, m].argmax()) for m in mine}
                assert set(found.named[c, 2, n, t].tolist()) == expected


@torch.no_grad()
def test_the_planted_memory_is_found_in_its_block(built):
    """Value k of block 2 writes the code of class k, and is most active where the label is k: at every token."""
    batch = next(built.batches(built.test))
    found = memories.used(built, batch, top=1)
    assert bool(found.agrees[0, 2].all())
    assert not bool(found.by_chance[0, 2].any())
    assert torch.equal(found.named[0, 2, :, :, 0], batch.targets.unsqueeze(1).expand(-1, found.named.shape[3]))
    assert float(memories.class_value_agreement(built, 2, "attn").min()) > 0.8
    assert float(memories.class_value_agreement(built, 1, "attn").abs().max()) == 0


def test_patches_by_probes_come_in_the_order_of_their_ranks():
    rank = torch.tensor([[[0, 5], [3, 0], [9, 9]], [[1, 5], [3, 0], [9, 9]]])  # (layer, patch, image)
    setup = type("", (), {"batch_size": 1})
    for image, order in enumerate(([0, 1, 2], [1, 0, 2])):
        batch = type("Batch", (), {"number": image, "__len__": lambda self: 1})()
        relevance = cuts.by_probes(rank)(setup, batch)
        assert relevance[0].argsort(descending=True).tolist() == order
        assert cuts.top(relevance, 1).nonzero()[0].tolist() == [0, order[0]]


def test_the_controls_of_kept_patches_keep_the_place_and_the_shape():
    setup = SimpleNamespace(seed=0, model=SimpleNamespace(patch_grid=lambda pixels: (3, 5)))
    batch = type("Batch", (), {"number": 0, "pixels": None, "__len__": lambda self: 4})()
    for row in cuts.adjoining(setup, batch):
        kept = [divmod(int(i), 5) for i in cuts.top(row.unsqueeze(0), 5)[0].nonzero()]
        for r, c in kept[1:]:  # every kept patch adjoins another one
            assert any(abs(r - a) + abs(c - b) == 1 for a, b in kept if (a, b) != (r, c))
    own = lambda setup, batch: torch.arange(12.0).view(4, 3)  # noqa: E731
    assert cuts.another(own)(setup, batch).tolist() == own(setup, batch)[[3, 0, 1, 2]].tolist()


def test_permutation_test_tells_a_difference_from_none():
    random = torch.Generator().manual_seed(0)
    where = torch.rand(40, 9, generator=random) < 0.4
    where[:, 0], where[:, 1] = True, False
    noise = torch.rand(40, 9, generator=random).double()
    naive = [float(v[w].mean() - v[~w].mean()) for v, w in zip(noise, where, strict=True)]
    assert context.difference(noise, where).tolist() == pytest.approx(naive)
    assert context.permutation_test(noise + where, where, 1, draws=99) == 0.01  # none of 99 draws comes near
    assert context.permutation_test(noise - where.double(), where, 1, draws=99) == 1
    # images differ a lot, their patches do not: what pools patches of all images would call a difference is none
    uneven = torch.linspace(0, 9, 40).unsqueeze(1).expand(-1, 9).double()
    assert context.permutation_test(uneven, where, 1, draws=99) == 1
    ps = [context.permutation_test(torch.rand(40, 9, generator=random).double(), where, k, draws=99) for k in range(40)]
    assert 0.3 < sum(ps) / 40 < 0.7


@pytest.mark.parametrize("family", ["vit", "siglip"])
@torch.no_grad()
def test_context_reads_objects_and_background(checkpoint, folder, family):
    s = CountingSetup.open(str(checkpoint(family)), str(folder), limit=12, batch_size=8, workers=0)
    s = replace(s, seed=0)
    rows = Rows()
    context.context(s, rows)
    table = rows.table()
    expected: dict[str, list] = {"objects": [], "background": []}
    hits = []
    for batch in s.batches(s.test):
        groups = s.masks(s.test_pairs, batch)
        h = plain_forward(s.model, batch.pixels)[0][2]
        logits = space.part_logits(s, h)[:, space.parts_of(s).index("patches") :]
        for i in range(0, len(batch), 2):
            where = (groups["removed object"] | groups["other objects"])[i, s.model.layout.index("patches")]
            if where.all():
                continue
            rank = [int((row > row[batch.targets[i]]).sum()) for row in logits[i]]
            ident = torch.tensor([1 - r / s.head.n_classes for r in rank])
            expected["objects"].append(float(ident[where].mean()))
            expected["background"].append(float(ident[~where].mean()))
            hits.append(
                int(s.head(plain_forward(s.model, batch.pixels[i : i + 1])[1]).argmax()) == int(batch.targets[i])
            )
    for group, values in expected.items():
        found = one(table, curve="identifiability", group=group, layer=2)
        assert (found["value"], found["n"]) == (pytest.approx(sum(values) / len(values), abs=1e-5), len(values))
    apart = one(table, curve="objects above background", layer=2)
    means = [sum(v) / len(v) for v in expected.values()]
    assert apart["value"] == pytest.approx(means[0] - means[1], abs=1e-5)
    assert 0 < apart["p"] <= 1
    control, beyond = (
        one(table, curve=f"objects above background, {what}", layer=2)["value"]
        for what in ("another count", "beyond another count")
    )
    assert beyond == pytest.approx(apart["value"] - control)
    output = one(table, curve="output, patches alone", group="all patches")
    assert output["value"] == pytest.approx(sum(hits) / len(hits))
    assert {r["group"] for r in pick(table, curve="output, patches alone")} == {"all patches", "objects", "background"}
