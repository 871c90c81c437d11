import pytest
import tiny
import torch
from tiny_readers import ALL, readers

from clsinterp import interventions as iv
from clsinterp.checks.plain_sweep import plain_forward, sweep
from clsinterp.errors import RequestError, RunError
from clsinterp.probing.metrics import ranks
from clsinterp.sweeps import batching
from clsinterp.sweeps.fork import fork
from clsinterp.vision_model import VisionModel

N = 11


def batch(n=N):
    return tiny.pixels(n), torch.arange(n) % tiny.CLASSES


def assert_same(found, expected):
    assert set(found) == set(expected)
    differ = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not differ


@pytest.mark.parametrize("family", tiny.WITH_CLS)
@pytest.mark.parametrize("mode", iv.MODES)
def test_fork_equals_one_hooked_forward_per_layer(model, family, mode):
    m, (x, y) = model(family), batch()
    replace = iv.donors(mode, y, (0, 0)) if mode in iv.SWAPS else iv.replacement(mode, (0, 0))
    expected = sweep(m, x, y, replace, readers(m), layers=ALL)
    assert_same(fork(m, x, y, replace, readers(m), layers=ALL), expected)
    assert any(name.startswith("rank_donor") for name in expected) == (mode in iv.SWAPS)
    assert len(set(expected["rank_intact"].tolist())) > 2  # ranks that mean something


@pytest.mark.parametrize(
    ("family", "layers", "micro"),
    [
        *((family, layers, 3) for family in tiny.FIVE for layers in ((0,), (1, 3), (-1, 2))),
        *(("deit", layers, micro) for layers in ((0,), (1, 3), (-1, 2)) for micro in (1, 10, 11, 400)),
    ],
)
def test_subsets_of_layers_and_memory_budgets_change_nothing(model, family, layers, micro):
    m, (x, y) = model(family), batch()
    donors = iv.permute(N, 3)
    r = readers(m, layers)
    assert_same(fork(m, x, y, donors, r, layers=layers, micro_batch=micro), sweep(m, x, y, donors, r, layers=layers))


@pytest.mark.parametrize("family", tiny.FIVE)
@pytest.mark.parametrize(
    "kind", [{"own": False}, {"final_norm": False}, {"refit": True}, {"own": False, "refit": True}]
)
def test_fitted_heads_refitted_heads_and_lens_without_norm(model, family, kind):
    m, (x, y) = model(family), batch()
    r = readers(m, **kind)
    donors = iv.derange(N, 1)
    assert_same(fork(m, x, y, donors, r, layers=ALL), sweep(m, x, y, donors, r, layers=ALL))


def test_the_data_may_have_other_labels_than_the_classifier(model):
    m, (x, y) = model("vit"), batch()
    r, labels = readers(m), (y + 3) % tiny.CLASSES
    donors = iv.permute(N, 0)
    found = fork(m, x, y, donors, r, layers=ALL, labels=labels)
    assert_same(found, sweep(m, x, y, donors, r, layers=ALL, labels=labels))
    assert not torch.equal(found["rank_probe_02"], fork(m, x, y, donors, r, layers=ALL)["rank_probe_02"])


@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_a_swap_before_block_0_changes_nothing(model, family):
    m, (x, y) = model(family), batch()
    found = fork(m, x, y, iv.derange(N, 0), readers(m, (-1,)), layers=(-1,))
    assert torch.equal(found["rank_shuffle_-1"], found["rank_intact"])


@pytest.mark.parametrize("family", ["vit", "beit", "deit-no-teacher"])
def test_after_a_swap_at_the_last_layer_a_cls_readout_sees_the_donor_alone(model, family):
    m, (x, y) = model(family), batch()
    donors = iv.derange(N, 0)
    last = tiny.LAYERS - 1
    found = fork(m, x, y, donors, readers(m, (last,)), layers=(last,))
    logits = m(x).logits[donors]
    assert torch.equal(found[f"rank_shuffle_{last:02d}"], ranks(logits, y))
    assert torch.equal(found[f"rank_donor_{last:02d}"], ranks(logits, y[donors]))


@pytest.mark.parametrize("family", ["vit", "beit"])
def test_lens_at_the_last_layer_is_the_output(model, family):
    m, (x, y) = model(family), batch()
    last = tiny.LAYERS - 1
    found = fork(m, x, y, iv.permute(N, 0), readers(m, (last,)), layers=(last,))
    assert torch.equal(found[f"rank_lens_{last:02d}"], found["rank_intact"])


def test_curves_that_do_not_exist_are_left_out(model):
    x, y = batch()
    names = {f: set(fork(model(f), x, y, iv.permute(N, 0), readers(model(f)), layers=ALL)) for f in tiny.FIVE}
    assert [f for f in tiny.FIVE if "rank_intact_cls_only" in names[f]] == ["deit", "dinov2"]
    assert [f for f in tiny.FIVE if "rank_lens_distill_00" in names[f]] == ["deit"]


@pytest.mark.parametrize("replace", [iv.mean, iv.zero, iv.noise(4), iv.exchange(torch.ones(N, tiny.WIDTH))])
@pytest.mark.parametrize("micro", [None, 4])
def test_other_replacements_ride_the_same_fork(model, replace, micro):
    m, (x, y) = model("vit"), batch()
    found = fork(m, x, y, replace, readers(m), layers=ALL, micro_batch=micro)
    assert "rank_donor_00" not in found
    for layer in ALL:
        logits = plain_forward(m, x, layer, 0, replace)[2]
        assert torch.equal(found[f"rank_shuffle_{layer:02d}"], ranks(logits, y))


@pytest.mark.parametrize("group", ["registers", "patches", [0, 5]])
def test_other_token_groups_can_be_swapped(model, group):
    m, (x, y) = model("dinov2-registers"), batch()
    donors = iv.derange(N, 0)
    found = fork(m, x, y, donors, readers(m), layers=ALL, group=group, micro_batch=5)
    assert_same(found, sweep(m, x, y, donors, readers(m), layers=ALL, group=group))


def test_block_passes_are_l_times_l_plus_one_over_two(model):
    m, (x, y) = model("dinov2"), batch()
    rows = []
    blocks = m._module.get_submodule(m.family.blocks)
    handles = [b.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0]))) for b in blocks]
    n_layers = tiny.LAYERS
    try:
        fork(m, x, y, iv.permute(N, 0), readers(m, tuple(range(n_layers))), layers=range(n_layers))
        assert sum(rows) == N * n_layers * (n_layers + 1) // 2
        rows.clear()
        fork(m, x, y, iv.permute(N, 0), readers(m, tuple(range(n_layers))), layers=range(n_layers), micro_batch=4)
        assert sum(rows) == N * (n_layers * (n_layers + 1) // 2 + n_layers)  # one intact pass more
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", tiny.WITH_CLS)
def test_blocks_in_pieces_change_nothing(model, family, monkeypatch):
    m, (x, y) = model(family), batch()
    n_tokens = m.layout.n_prefix + 9
    monkeypatch.setattr(batching, "TOKENS", 3 * n_tokens)
    donors, rows = iv.derange(N, 0), []
    expected = sweep(m, x, y, donors, readers(m), layers=ALL)
    block = m._module.get_submodule(m.family.blocks)[3]
    norm = getattr(block, m.family.ln1)
    handle = norm.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0])))
    try:
        assert_same(fork(m, x, y, donors, readers(m), layers=ALL), expected)
        assert sum(rows) == N * 5
        assert max(rows) == 3
        rows.clear()
        with m.hooks([("blocks.3.attn.hook_z", lambda z, hook: -3 * z)]):  # an edit inside a block needs it whole
            found = fork(m, x, y, donors, readers(m), layers=ALL)
            assert not torch.equal(found["rank_intact"], expected["rank_intact"])
        assert N * 5 in rows
    finally:
        handle.remove()


@pytest.fixture
def fewer(monkeypatch):
    """Which blocks were run for the tokens before the patches alone."""
    made = []
    real = batching.prefix_block

    def spy(model, layer):
        block = real(model, layer)
        made.append((layer, block is not None))
        return block

    monkeypatch.setattr(batching, "prefix_block", spy)
    return made


@pytest.mark.parametrize("family", tiny.FIVE)
@pytest.mark.parametrize("micro", [None, 4])
def test_the_last_block_is_run_for_the_tokens_that_are_read(model, family, micro, fewer):
    m, (x, y) = model(family), batch()
    donors = iv.derange(N, 2)
    assert_same(
        fork(m, x, y, donors, readers(m), layers=ALL, micro_batch=micro), sweep(m, x, y, donors, readers(m), layers=ALL)
    )
    times = 1 if micro is None else 3
    assert fewer == ([] if family in ("dinov2", "clip") else [(tiny.LAYERS - 1, True)] * times)


@pytest.mark.parametrize("group", ["patches", [0, 5], [0, -1], "cls+distill", [1]])
@pytest.mark.parametrize("layers", [ALL, (0, 2)])
def test_patches_are_there_to_be_replaced_after_the_last_block(model, group, layers, fewer):
    m, (x, y) = model("deit"), batch()

    def change(tokens):  # every token that is replaced depends on all that are
        return tokens.roll(1, 0) + tokens.mean(dim=1, keepdim=True)

    found = fork(m, x, y, change, readers(m, layers), layers=layers, group=group)
    assert_same(found, sweep(m, x, y, change, readers(m, layers), layers=layers, group=group))
    only_prefix = group in ("cls+distill", [1])
    assert fewer == ([(tiny.LAYERS - 1, True)] if only_prefix or layers != ALL else [])


def test_what_stands_in_the_last_block_is_not_left_out(model, fewer):
    m, (x, y) = model("vit"), batch()
    donors = iv.derange(N, 2)
    expected = sweep(m, x, y, donors, readers(m), layers=ALL)
    with m.hooks([("blocks.3.mlp.hook_post", lambda value, hook: -value)]):
        edited = fork(m, x, y, donors, readers(m), layers=ALL)
    assert fewer == []
    assert not torch.equal(edited["rank_intact"], expected["rank_intact"])
    handle = m._module.vit.layers[3].attention.o_proj.register_forward_hook(lambda _m, _a, out: -out)
    try:
        found = fork(m, x, y, donors, readers(m), layers=ALL)
        assert_same(found, sweep(m, x, y, donors, readers(m), layers=ALL))
    finally:
        handle.remove()
    assert fewer == [(3, False)]
    assert not torch.equal(found["rank_intact"], expected["rank_intact"])


def test_nan_names_the_layer(checkpoint):
    m = VisionModel(str(checkpoint("vit")), device="cpu")
    x, y = batch()
    with torch.no_grad():
        m._module.vit.layers[2].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(RunError, match="layer 2"):
        fork(m, x, y, iv.permute(N, 0), readers(m), layers=ALL)


def test_requests_that_mean_nothing_are_refused(model):
    x, y = batch()
    donors = iv.permute(N, 0)
    vit = model("vit")
    with pytest.raises(RequestError, match="layer 4 was given; this model has layers 0 to 3"):
        fork(vit, x, y, donors, readers(vit), layers=[*ALL, 4])
    with pytest.raises(RequestError, match="siglip model has no cls token; its tokens are: patches"):
        fork(model("siglip"), x, y, donors, readers(vit), layers=ALL)
    with pytest.raises(RequestError, match="not among the layers"):
        fork(vit, x, y, donors, readers(vit), layers=[0])


def test_the_model_is_left_as_it_came(model):
    m, (x, y) = model("beit"), batch()
    before = m(x).logits
    fork(m, x, y, iv.permute(N, 0), readers(m), layers=ALL)
    assert torch.equal(m(x).logits, before)


def test_nan_in_a_swapped_row_alone_is_not_ranked(model):
    """Intact rows stay finite; the copy is broken by what is put in its CLS token's place."""
    m, (x, y) = model("vit"), batch()

    def broken(tokens):
        return torch.full_like(tokens, float("nan"))

    with pytest.raises(RunError, match="first after layer 2"):
        fork(m, x, y, broken, readers(m, layers=(2,)), layers=(2,))


def test_what_other_readouts_are_held_at(model):
    m, (x, y) = model("dinov2"), batch()
    donors = iv.permute(N, 0)
    for own in (True, False):
        r = readers(m, own=own, held=True)
        found = fork(m, x, y, donors, r, layers=ALL)
        assert_same(found, sweep(m, x, y, donors, r, layers=ALL))
        zeroed = fork(m, x, y, donors, readers(m, own=own), layers=ALL)
        assert not torch.equal(found["rank_intact_cls_only"], zeroed["rank_intact_cls_only"])
