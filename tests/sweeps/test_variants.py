import pytest
import tiny
import torch

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.errors import RequestError
from clsinterp.probing.head import Head
from clsinterp.sweeps import batching
from clsinterp.sweeps.variants import INTACT, Edit, on, variants

N = 6
ORDER = torch.tensor([3, 0, 5, 1, 2, 4])


@pytest.fixture(autouse=True, params=[batching.TOKENS, 25], ids=["whole", "pieces"])
def tokens_at_once(request, monkeypatch):
    monkeypatch.setattr(batching, "TOKENS", request.param)


def logits(model, readout):
    return Head.of(model.family, model.heads)(readout)


@pytest.mark.parametrize("family", tiny.FIVE)
def test_every_copy_equals_a_forward_of_its_own(model, family):
    m, x = model(family), tiny.pixels(N)
    patches = m.layout.index("patches")
    places = [(layer, where) for layer in (-1, 0, 2, 3) for where in (0, patches, [0, 4])]
    edits = [Edit({layer: on(where, lambda t: t[ORDER])}) for layer, where in places]
    found = variants(m, x, edits, watched=range(-1, 4))
    for k, (layer, where) in enumerate(places, start=1):
        states, readout, expected = plain_forward(m, x, layer, where, lambda t: t[ORDER])
        torch.testing.assert_close(found.readout[k], readout, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits(m, found.readout[k]), expected, rtol=1e-4, atol=1e-5)
        for later in range(layer, 4):
            torch.testing.assert_close(found.tokens[later][k], states[later][:, 0], rtol=1e-4, atol=1e-5)
        assert all(k not in found.tokens[earlier] for earlier in range(-1, layer))
    torch.testing.assert_close(found.readout[INTACT], plain_forward(m, x)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", tiny.FIVE)
@pytest.mark.parametrize("watch", ["cls", "patches"])
def test_the_last_block_is_of_the_tokens_that_are_read_or_watched(model, family, watch, monkeypatch):
    m, x, where, made = model(family), tiny.pixels(N), model(family).layout.index(watch), []
    real = batching.prefix_block
    monkeypatch.setattr(batching, "prefix_block", lambda *at: made.append(at[1]) or real(*at))
    found = variants(m, x, [Edit({i: on(0, lambda t: t[ORDER])}) for i in (-1, 1)], watch=watch, watched=(3,))
    assert made == ([3] if watch == "cls" and family not in ("dinov2", "clip") else [])
    for k, layer in ((1, -1), (2, 1)):
        states, readout, _ = plain_forward(m, x, layer, 0, lambda t: t[ORDER])
        torch.testing.assert_close(found.readout[k], readout, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.tokens[3][k], states[3][:, where], rtol=1e-4, atol=1e-5)


def hooked(m, x, changes):
    """Logits with plain torch hooks at several blocks."""
    blocks = m._module.get_submodule(m.family.blocks)
    handles = [blocks[i].register_forward_hook(lambda _m, _a, out, f=f: f(out.clone())) for i, f in changes.items()]
    with torch.no_grad():
        out = m._module(x).logits
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("family", tiny.FIVE)
def test_one_copy_may_be_edited_at_several_layers(model, family):
    m, x = model(family), tiny.pixels(N)

    def shift(layer):
        return on(0, lambda t: t.roll(layer + 1, 0) * 0.5)

    changes = {layer: shift(layer) for layer in (0, 1, 3)}
    found = variants(m, x, [Edit(changes), Edit({2: shift(2)})])
    torch.testing.assert_close(logits(m, found.readout[1]), hooked(m, x, changes), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(m, found.readout[2]), hooked(m, x, {2: shift(2)}), rtol=1e-4, atol=1e-5)


def test_copies_that_leave_early_change_nothing_else(model):
    m, x = model("beit"), tiny.pixels(N)
    edits = [Edit({i: on(0, lambda t: t[ORDER])}, until=i + 1) for i in (-1, 0, 2)]
    whole = [Edit(edit.at) for edit in edits]
    short, full = (variants(m, x, e, watched=range(4)) for e in (edits, whole))
    assert set(short.readout) == {INTACT}
    for k, last in ((1, 0), (2, 1), (3, 3)):
        torch.testing.assert_close(short.tokens[last][k], full.tokens[last][k])
        assert all(k not in short.tokens[later] for later in range(last + 1, 4))
    torch.testing.assert_close(short.readout[INTACT], full.readout[INTACT])


def test_a_memory_budget_changes_nothing(model):
    m, x = model("dinov2"), tiny.pixels(N)
    edits = [Edit({i % 4: on(0, lambda t, i=i: t.roll(i, 0))}) for i in range(9)]
    free, tight = variants(m, x, edits, watched=(2,)), variants(m, x, edits, watched=(2,), memory_gb=0.001)
    for k in free.readout:
        torch.testing.assert_close(free.readout[k], tight.readout[k], rtol=1e-5, atol=1e-6)
    assert {k: v.shape for k, v in free.tokens[2].items()} == {k: v.shape for k, v in tight.tokens[2].items()}


def test_gradients_reach_an_edited_copy_through_its_block(model):
    m, x = model("vit"), tiny.pixels(3)
    block = m._module.get_submodule(m.family.blocks)[2]
    token = torch.randn(3, tiny.WIDTH, requires_grad=True)
    edit = Edit({1: on(0, lambda old: token)}, until=2)
    found = variants(m, x, [edit], watched=(2,), grad=True).tokens[2]
    assert not found[INTACT].requires_grad  # nothing flows into the intact rows
    found[1].square().sum().backward()
    states = plain_forward(m, x)[0]
    other = token.detach().clone().requires_grad_()
    h = torch.cat([other.unsqueeze(1), states[1][:, 1:]], dim=1)
    block(h)[:, 0].square().sum().backward()
    torch.testing.assert_close(token.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_requests_that_mean_nothing(model):
    m, x = model("vit"), tiny.pixels(2)
    with pytest.raises(RequestError, match="without a layer"):
        variants(m, x, [Edit({})])
    with pytest.raises(RequestError, match="layers 0 to 3"):
        variants(m, x, [Edit({4: lambda h: h})])
    with pytest.raises(RequestError, match="no registers token"):
        variants(m, x, [], watch="registers", watched=(0,))
