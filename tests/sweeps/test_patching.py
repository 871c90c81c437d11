import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from clsinterp.checks.plain_hooks import edited_forward
from clsinterp.errors import RequestError
from clsinterp.figures import heatmaps
from clsinterp.hooks import attention
from clsinterp.probing.metrics import mean_interval
from clsinterp.sweeps.patching import (  # fmt: skip
    TABLE,
    attribution_patch,
    logit_difference,
    patch_attn_head,
    patch_mlp,
    patch_resid,
    recovered,
)

N = 4


@pytest.fixture
def pair():
    return tiny.pixels(N, seed=1), tiny.pixels(N, seed=2)


def metric():
    return logit_difference(torch.arange(N) % 7, (torch.arange(N) + 1) % 7)


def naive(m, clean, corrupted, name, axis, place):
    """One edited forward for one place."""
    source = edited_forward(m, clean, None, lambda v: v)[0][name]

    def edit(value):
        value = value.clone()
        value.select(axis, place).copy_(source.select(axis, place))
        return value

    return metric()(edited_forward(m, corrupted, name, edit)[1])


@pytest.mark.parametrize(
    ("family", "what"),
    [
        *((family, "resid_post") for family in tiny.FIVE),
        *(("beit", what) for what in ("resid_pre", "resid_mid", "attn_out", "mlp_out")),
    ],
)
def test_token_sweeps_equal_one_forward_per_place(model, pair, family, what):
    m = model(family)
    tokens, layers = (0, 1, 5), (0, 2)
    table = patch_resid(m, *pair, metric(), what, layers=layers, tokens=tokens)
    assert table.schema == TABLE
    rows = {(r["layer"], r["token"]): r for r in table.to_pylist()}
    assert set(rows) == {(layer, t) for layer in layers for t in tokens}
    for (layer, token), row in rows.items():
        values = naive(m, *pair, f"blocks.{layer}.hook_{what}", 1, token)
        assert row["value"] == pytest.approx(float(values.mean()), abs=1e-4)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


@pytest.mark.parametrize(
    ("family", "what", "axis"),
    [
        *((family, "z", 2) for family in tiny.FIVE),
        *((family, "pattern", 1) for family in tiny.FIVE),
        *(("beit", what, axis) for what, axis in (("v", 2), ("result", 2), ("attn_scores", 1))),
    ],
)
def test_head_sweeps_equal_one_forward_per_head(model, pair, family, what, axis):
    m = model(family)
    for row in patch_attn_head(m, *pair, metric(), what, layers=[1]).to_pylist():
        values = naive(m, *pair, f"blocks.1.attn.hook_{what}", axis, row["head"])
        assert row["value"] == pytest.approx(float(values.mean()), abs=1e-4)


def test_a_memory_budget_changes_nothing(model, pair):
    m = model("beit")
    assert patch_mlp(m, *pair, metric()).equals(patch_mlp(m, *pair, metric(), memory_gb=0.0005))


def test_patching_everything_recovers_the_clean_run(model, pair):
    m = model("vit")
    with torch.no_grad():
        clean, corrupted = (m(x).logits for x in pair)
    scale = recovered(metric(), clean, corrupted)
    assert float(scale(clean).mean()) == pytest.approx(1, abs=1e-5)
    assert float(scale(corrupted).mean()) == pytest.approx(0, abs=1e-5)
    # after the last block the read-out sees the CLS token alone
    rows = {r["token"]: r["value"] for r in patch_resid(m, *pair, scale, "resid_post", layers=[3]).to_pylist()}
    assert rows[0] == pytest.approx(1, abs=1e-4)
    assert all(abs(v) < 1e-4 for t, v in rows.items() if t)
    with pytest.raises(RequestError, match="nothing to recover"):
        recovered(metric(), clean, clean)


def test_recovery_is_paired_with_each_images_own_corrupted_run(model, pair):
    """What a patch adds is counted from where the image stood: images that start apart do not widen the interval."""
    m = model("vit")
    with torch.no_grad():
        clean, corrupted = (m(x).logits for x in pair)
    low, high = metric()(corrupted), metric()(clean)
    scale = recovered(metric(), clean, corrupted)
    torch.testing.assert_close(scale(corrupted), torch.zeros(N))
    for row in patch_attn_head(m, *pair, scale, layers=[1]).to_pylist():
        values = (naive(m, *pair, "blocks.1.attn.hook_z", 2, row["head"]) - low) / (high - low).mean()
        assert row["value"] == pytest.approx(float(values.mean()), abs=1e-4)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(mean_interval(values), abs=1e-3)


@pytest.mark.parametrize("what", ["resid_pre", "mlp_out", "z", "pattern"])
def test_attribution_patching_is_the_first_order_of_patching(model, what):
    """For a small difference between the runs the estimate and the real sweep agree to second order."""
    m = model("dinov2")
    corrupted = tiny.pixels(N)
    real = patch_resid if what in ("resid_pre", "mlp_out") else patch_attn_head
    errors = []
    for step in (1e-1, 1e-2):
        clean = corrupted + step * tiny.pixels(N, seed=9)
        a = np.array(attribution_patch(m, clean, corrupted, metric(), what)["value"])
        b = np.array(real(m, clean, corrupted, metric(), what)["value"])
        errors.append(np.abs(a - b).max())
        if step == 1e-2:
            base = float(metric()(m(corrupted).logits.detach()).mean())
            assert np.abs(a - base).max() > 3 * errors[-1]
    assert errors[1] < errors[0] / 20


def test_requests_that_mean_nothing(model, pair):
    m = model("vit")
    for call, text in (
        (lambda: patch_resid(m, *pair, metric(), "pattern"), "resid_pre"),
        (lambda: patch_attn_head(m, *pair, metric(), "resid_pre"), "pattern"),
        (lambda: patch_resid(m, *pair, metric(), layers=[9]), "layers 0 to 3"),
        (lambda: patch_resid(m, *pair, metric(), tokens=[10]), "token 10 was given; there are 10"),
        (lambda: patch_resid(m, pair[0], pair[1][:2], metric()), "needs pairs"),
    ):
        with pytest.raises(RequestError, match=text):
            call()


def test_patching_figures(model, pair):
    m = model("deit")
    table = patch_resid(m, *pair, metric(), layers=[0, 1])
    names = m.layout.names(11)
    assert names[:4] == ["CLS", "distill", "0", "1"]
    heat = heatmaps.patching_figure(table, "x", names).data[0]
    assert list(heat.x) == names
    assert len(heat.z) == 2
    by_head = heatmaps.patching_figure(patch_attn_head(m, *pair, metric(), layers=[2]), "x")
    assert by_head.layout.xaxis.title.text == "head"


# -- attention ---------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.WITH_CLS)
@torch.no_grad()
def test_cls_attention_is_the_eager_models_pattern(checkpoint, model, family):
    from clsinterp.vision_model import VisionModel

    eager = VisionModel(str(checkpoint(family)), attn_implementation="eager", device="cpu")
    x = tiny.pixels(2)
    maps = attention.cls_attention(model(family), x)
    assert maps.shape == (4, 2, 2, 3, 3)
    for i in range(4):
        with eager.trace(x):
            weights = eager.blocks[i].attn.output[1].save()
        expected = weights[:, :, 0, eager.layout.n_prefix :].reshape(2, 2, 3, 3)
        torch.testing.assert_close(maps[i], expected, rtol=1e-4, atol=1e-5)


def test_rollout_is_the_product_of_mixed_patterns(model):
    m, x = model("vit"), tiny.pixels(2)
    rolled = attention.rollout(m, x)
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 10))
    expected = np.eye(10)
    for pattern in attention.patterns(m, x)[:, 0].mean(1).double().numpy():
        expected = (0.5 * np.eye(10) + 0.5 * pattern) @ expected
    np.testing.assert_allclose(rolled[0], expected, atol=1e-5)
    assert attention.rollout_map(m, x).shape == (2, 3, 3)
    with pytest.raises(RequestError, match="below 1"):
        attention.rollout(m, x, residual=1)
    with pytest.raises(RequestError, match="no cls token"):
        attention.rollout_map(model("siglip"), x)


def test_attention_figure(model):
    m, x = model("vit"), tiny.pixels(1)
    maps = attention.cls_attention(m, x)[0, 0]
    fig = heatmaps.attention_figure(Image.new("RGB", (24, 24)), maps, ["head 0", "head 1"], "block 0")
    assert [type(t).__name__ for t in fig.data] == ["Image", "Heatmap", "Heatmap"]
    # the first row of patches is drawn at the top
    assert list(fig.data[1].z[-1]) == pytest.approx(maps[0, 0].tolist())
