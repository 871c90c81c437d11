"""Attention knock-outs against masks put into the models' own softmax, and against models of which the answer is known."""

from contextlib import contextmanager

import pytest
import tiny
import torch

from clsinterp.errors import RequestError
from clsinterp.interventions import mean, swap
from clsinterp.models.planted import planted
from clsinterp.probing.head import Head
from clsinterp.sweeps.answers import Answers
from clsinterp.sweeps.cuts import Cut, cut_block, is_not_read, reads_nothing
from clsinterp.sweeps.knock import keeps_sinks, knock_outs
from clsinterp.sweeps.plan import INTACT, Edit, block_passes
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import on, variants
from clsinterp.vision_model import VisionModel

N = 3


@contextmanager
def masked(module, blocks, hidden):
    """Every softmax of attention in block i gives the pairs (query, key) of ``hidden[i]`` nothing."""
    now = [None]
    softmax, fused = torch.nn.functional.softmax, torch.nn.functional.scaled_dot_product_attention

    def hide(scores):
        scores = scores.clone()
        for query, key in hidden.get(now[0], ()):
            scores[..., query, key] = -torch.inf
        return scores

    def own_softmax(scores, *args, **kwargs):
        return softmax(hide(scores) if scores.ndim == 4 else scores, *args, **kwargs)

    def own_fused(q, k, v, attn_mask=None, scale=None, **_):
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        scores = scores if attn_mask is None else scores + attn_mask
        return softmax(hide(scores), dim=-1) @ v

    def enter(i):
        return lambda _m, _a: now.__setitem__(0, i)

    handles = [block.register_forward_pre_hook(enter(i)) for i, block in enumerate(blocks)]
    torch.nn.functional.softmax, torch.nn.functional.scaled_dot_product_attention = own_softmax, own_fused
    try:
        yield
    finally:
        torch.nn.functional.softmax, torch.nn.functional.scaled_dot_product_attention = softmax, fused
        for handle in handles:
            handle.remove()


def pairs(groups, curve):
    """What a knock-out hides, from nothing but the groups of tokens: [(query, key), ..]."""
    special = [*groups["cls"], *groups.get("distill", [])]
    if "patches" in curve:
        return [(q, k) for q in groups["patches"] for k in special]
    kept = groups.get("registers", []) if curve.endswith("registers") else []
    every = [i for group in groups.values() for i in group]
    return [(q, k) for q in special for k in every if k != q and k not in kept]


def blocks_of(curve, layer):
    if "until" in curve:
        return range(layer + 1)
    return range(layer, tiny.LAYERS) if "from" in curve else range(layer, layer + 3)


@pytest.fixture(scope="module")
def with_kernel(checkpoint):
    made = {}

    def get(family, kernel):
        if (family, kernel) not in made:
            made[family, kernel] = VisionModel(str(checkpoint(family)), attn_implementation=kernel, device="cpu")
        return made[family, kernel]

    return get


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_every_knock_out_equals_a_masked_softmax(with_kernel, family, kernel):
    m, x = with_kernel(family, kernel), tiny.pixels(N)
    edits = knock_outs(m)
    found = variants(m, x, list(edits.values()))
    n_tokens = m.layout.n_prefix + 9
    groups = {g: list(range(n_tokens))[s] for g, s in m.layout.slices.items()}
    blocks = m._module.get_submodule(m.family.blocks)
    registers = "registers" in groups
    assert {c for c, _ in edits} == {
        "knock_until", "knock_from", "knock_at", "knock_patches_until",
        *(f"knock_{x}_registers" for x in ("until", "from", "at") if registers),
    }  # fmt: skip
    moved = []
    for k, (curve, layer) in enumerate(edits, start=1):
        hidden = {b: pairs(groups, curve) for b in blocks_of(curve, layer)}
        with masked(m._module, blocks, hidden):
            expected = variants(m, x, []).readout[INTACT]
        torch.testing.assert_close(found.readout[k], expected, rtol=1e-4, atol=1e-5)
        moved.append(not torch.allclose(found.readout[k], found.readout[INTACT], atol=1e-4))
        if m.family.heads:
            head = Head.of(m.family, m.heads)
            assert torch.equal(head(found.readout[k]).argsort(), head(expected).argsort())
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("family", ["vit", "deit", "beit", "dinov3"])
def test_a_token_that_reads_itself_only_gets_its_own_value(model, family):
    m, x = model(family), tiny.pixels(N)
    alone = reads_nothing(m.layout)
    with torch.no_grad(), m.trace(x):
        values = m.blocks[1].attn.v_proj.output.save()
    with torch.no_grad(), m.trace(x):
        cut_block(m, 1, [(slice(0, N), alone.plain)])
        z = m.blocks[1].attn.get(m.family.attn_out).input.save()
    for token in {"deit": (0, 1)}.get(family, (0,)):
        assert torch.equal(z[:, token], values[:, token])
    assert not torch.equal(z[:, -1], values[:, -1])


def test_cuts_join_edits_of_the_stream(model):
    """A swap and a cut in one copy, and two copies that part between the two."""
    m, x = model("vit"), tiny.pixels(N)
    where, order = m.layout.index("cls"), torch.tensor([1, 2, 0])
    swap, cut = on(where, lambda t: t[order]), reads_nothing(m.layout)
    both = variants(m, x, [Edit({1: swap}, cuts={2: cut}), Edit({1: swap}), Edit(cuts={2: cut})], watched=(1, 2))
    assert set(both.tokens[1]) == {INTACT, 1, 2}
    torch.testing.assert_close(both.tokens[1][1], both.tokens[1][2], rtol=0, atol=0)
    for k, edit in enumerate([Edit({1: swap}, cuts={2: cut}), Edit({1: swap}), Edit(cuts={2: cut})], start=1):
        torch.testing.assert_close(both.readout[k], variants(m, x, [edit]).readout[1], rtol=1e-4, atol=1e-5)
    blocks = m._module.get_submodule(m.family.blocks)
    handle = blocks[1].register_forward_hook(lambda _m, _a, out: torch.cat([out[order, :1], out[:, 1:]], dim=1))
    with masked(m._module, blocks, {2: [(0, k) for k in range(1, 10)]}):
        expected = variants(m, x, []).readout[INTACT]
    handle.remove()
    torch.testing.assert_close(both.readout[1], expected, rtol=1e-4, atol=1e-5)


def test_fewer_copies_at_once_change_nothing_and_cost_more_passes(model):
    m, x = model("dinov2-registers"), tiny.pixels(N)
    edits = list(knock_outs(m).values())
    wide, narrow = (variants(m, x, edits, at_once=k).readout for k in (16, 2))
    for k in wide:
        torch.testing.assert_close(wide[k], narrow[k], rtol=1e-4, atol=1e-5)
    assert block_passes(edits, m.n_layers, 16)[0] < block_passes(edits, m.n_layers, 2)[0]


@pytest.mark.parametrize("at_once", [1, 2, 5, 16])
def test_block_passes_are_those_that_run(model, at_once, monkeypatch):
    m, x = model("vit"), tiny.pixels(N)
    edits = list(knock_outs(m).values())
    rows = []
    handles = [
        getattr(block, m.family.ln1).register_forward_hook(lambda _m, _a, out: rows.append(len(out)))
        for block in m._module.get_submodule(m.family.blocks)
    ]
    monkeypatch.setattr("clsinterp.sweeps.batching.TOKENS", 10**9)  # whole batches, whose hooks see every row
    variants(m, x, edits, at_once=at_once)
    for handle in handles:
        handle.remove()
    shared, alone = block_passes(edits, m.n_layers, at_once)
    assert sum(rows) == shared * N
    assert alone == m.n_layers * (1 + len(edits))
    assert (shared < alone) == (at_once >= 5)  # every forward has the intact rows, too


def test_passes_of_twelve_blocks(model):
    """until: a trunk of 12 and 11 + .. + 1 after it; from: 12 + .. + 1, the first of which is the trunk, and so on."""
    cut = Cut((((0, 1), (1, None)),))
    until = [Edit(cuts=dict.fromkeys(range(layer + 1), cut)) for layer in range(12)]
    since = [Edit(cuts=dict.fromkeys(range(layer, 12), cut)) for layer in range(12)]
    assert block_passes(until, 12, 16) == (12 + 12 + 66, 13 * 12)
    assert block_passes([*until, *since], 12, 99) == (12 + 12 + 66 + 66, 25 * 12)


@contextmanager
def reading_others(module, blocks, hidden, other):
    """In block i, query by query, the keys and values of the pairs (query, key) of ``hidden[i]`` are those `other` makes."""
    now, fused = [None], torch.nn.functional.scaled_dot_product_attention

    def own_fused(q, k, v, attn_mask=None, scale=None, **_):
        out = []
        for query in range(q.shape[2]):
            keys, values = k.clone(), v.clone()
            for key in [key for asking, key in hidden.get(now[0], ()) if asking == query]:
                keys[:, :, key], values[:, :, key] = other(k[:, :, key]), other(v[:, :, key])
            score = (q[:, :, query, None] * keys).sum(-1) * (q.shape[-1] ** -0.5 if scale is None else scale)
            score = (
                score if attn_mask is None else score + attn_mask.expand(*score.shape[:2], q.shape[2], -1)[:, :, query]
            )
            out.append((score.softmax(-1)[..., None] * values).sum(2))
        return torch.stack(out, dim=2)

    handles = [b.register_forward_pre_hook(lambda _m, _a, i=i: now.__setitem__(0, i)) for i, b in enumerate(blocks)]
    torch.nn.functional.scaled_dot_product_attention = own_fused
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = fused
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_other_keys_and_values_equal_those_put_in_query_by_query(with_kernel, family, kernel):
    m, twin, x = with_kernel(family, kernel), with_kernel(family, "sdpa"), tiny.pixels(N)
    order = torch.tensor([2, 0, 1])
    edits = keeps_sinks(m)
    edits |= {("swap_patches_until", 1): Edit(cuts=dict.fromkeys((0, 1), is_not_read(m.layout, instead=swap(order))))}
    found = variants(m, x, list(edits.values()))
    tokens = list(range(m.layout.n_prefix + 9))
    groups = {g: tokens[s] for g, s in m.layout.slices.items()}
    blocks = twin._module.get_submodule(twin.family.blocks)
    others = {"swap_patches_until": lambda t: t[order]}
    moved = []
    for k, (curve, layer) in enumerate(edits, start=1):
        hidden = {b: pairs(groups, curve) for b in blocks_of(curve, layer)}
        other = others.get(curve, lambda t: t.mean(0, keepdim=True).expand_as(t))
        with reading_others(twin._module, blocks, hidden, other):
            expected = variants(twin, x, []).readout[INTACT]
        torch.testing.assert_close(found.readout[k], expected, rtol=1e-4, atol=1e-5)
        moved.append(not torch.allclose(found.readout[k], found.readout[INTACT], atol=1e-4))
    assert sum(moved) > len(moved) / 2


def test_other_keys_and_values_that_are_the_same_change_nothing_and_one_image_is_its_own_mean(model):
    m, x = model("vit"), tiny.pixels(N)
    same = variants(m, x, [Edit(cuts={1: is_not_read(m.layout, instead=swap(torch.arange(N)))})]).readout
    torch.testing.assert_close(same[1], same[INTACT], rtol=1e-5, atol=1e-6)
    alone = variants(m, x[:1], list(keeps_sinks(m).values())).readout
    for k in alone:
        torch.testing.assert_close(alone[k], alone[INTACT], rtol=1e-5, atol=1e-6)
    hides, keeps = is_not_read(m.layout), is_not_read(m.layout, instead=mean)
    assert hides != keeps
    assert keeps == is_not_read(m.layout, instead=mean)  # so that copies share rows


CASES = [(a, b) for b in range(4) for a in range(b + 1)]


@pytest.mark.parametrize(("a", "b"), CASES)
def test_a_model_that_reads_patches_in_one_block_is_blind_without_it_and_only_then(a, b):
    built = planted(a, b, n_layers=4)
    m = VisionModel(built.model, device="cpu")
    label = torch.arange(8) % 4
    edits = knock_outs(m)
    read = variants(m, built.pixels(label.tolist()), list(edits.values()),
                    reader=Answers(Readers(Head.of(m.family, m.heads)), label)).read  # fmt: skip
    assert read[INTACT]["answer"].tolist() == label.tolist()
    for k, (curve, layer) in enumerate(edits, start=1):
        blind = curve != "knock_patches_until" and b in blocks_of(curve, layer)
        expected = torch.zeros_like(label) if blind else label  # all classes tie: the first is answered
        assert read[k]["answer"].tolist() == expected.tolist(), (curve, layer)
        assert (read[k]["rank"] == 0).tolist() == (expected == label).tolist()


LABELS = torch.tensor([0, 1, 1, 2, 3, 2, 2, 0])  # class 2 is the most frequent
PATCHES = {
    "label read from CLS": ({"probe_from": 0, "used_from": 1, "used_until": 2}, None, 2),
    "nothing read from CLS": ({"probe_from": 1, "used_from": None}, None, None),
    "a sink": ({"probe_from": 0, "used_from": None, "sink": 2}, 2, None),
    "a sink before the label is read": ({"probe_from": 0, "used_from": 0, "used_until": 3, "sink": 1}, None, 3),
}


@pytest.mark.parametrize(("case", "sink", "read"), PATCHES.values(), ids=PATCHES)
def test_a_lost_sink_and_a_lost_label_are_told_apart(case, sink, read):
    """`sink`: the block without which patches go wrong, `read`: the one in which they read a label that the output needs."""
    built = planted(**case, reads="patches", n_layers=4)
    answers = answered(built, LABELS)
    for (curve, layer), answer in answers.items():
        expected = LABELS
        if curve == "knock_patches_until" and sink is not None and layer >= sink:
            expected = (LABELS == 0).long()  # all but the label tie: the first of them is answered
        if curve == "mean_kv_patches_until" and read is not None and layer >= read:
            expected = torch.full_like(LABELS, 2)
        if "patches" in curve:
            assert answer.tolist() == expected.tolist(), (curve, layer)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_a_cls_token_that_reads_the_mean_image_says_what_is_most_frequent(a, b):
    for (curve, layer), answer in answered(planted(a, b, n_layers=4), LABELS).items():
        lost = {"knock_until": torch.zeros_like(LABELS), "mean_kv_until": torch.full_like(LABELS, 2)}
        if "until" in curve:
            expected = lost[curve] if curve in lost and layer >= b else LABELS
            assert answer.tolist() == expected.tolist(), (curve, layer)


def answered(built, label):
    """The answers under every knock-out and its control, by curve and layer."""
    m = VisionModel(built.model, device="cpu")
    edits = knock_outs(m) | keeps_sinks(m)
    read = variants(m, built.pixels(label.tolist()), list(edits.values()),
                    reader=Answers(Readers(Head.of(m.family, m.heads)), label)).read  # fmt: skip
    assert read[INTACT]["answer"].tolist() == label.tolist()
    return {place: read[k]["answer"] for k, place in enumerate(edits, start=1)}


def test_what_cannot_be_cut_is_refused_by_name(model):
    siglip = model("siglip")
    for made in (knock_outs, keeps_sinks):
        with pytest.raises(RequestError, match="siglip model has no cls token"):
            made(siglip)
    vit = model("vit")
    with pytest.raises(RequestError, match="vit model has no registers token"):
        reads_nothing(vit.layout, keep=["registers"])
    with pytest.raises(RequestError, match="before block 0"):
        variants(vit, tiny.pixels(2), [Edit(cuts={-1: is_not_read(vit.layout)})])
    with pytest.raises(RequestError, match="layers 0 to 3"):
        variants(vit, tiny.pixels(2), [Edit(cuts={4: is_not_read(vit.layout)})])
    with pytest.raises(RequestError, match="without a layer"):
        variants(vit, tiny.pixels(2), [Edit()])
