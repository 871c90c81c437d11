import pytest
import tiny
import torch
import transformers as hf

from clsinterp.checks.local import check
from clsinterp.checks.plain_hooks import edited_forward
from clsinterp.errors import RequestError
from clsinterp.hooks.cache import ActivationCache
from clsinterp.hooks.visits import HookPoint
from clsinterp.vision_model import VisionModel

N = 3


def noise(value, hook=None):
    return value * 1.1 + 0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))


def headless(family):
    return family in ("dinov3", "vit-mae")


@pytest.mark.parametrize("family", list(tiny.BUILD))
@torch.no_grad()
def test_every_name_reads_and_writes_what_plain_torch_does(model, family):
    m, x = model(family), tiny.pixels(N)
    names = [n for n in m.hook_names() if not (n == "hook_readout" and headless(family))]
    _, cache = m.run_with_cache(x, m.hook_names())
    seen, plain = edited_forward(m, x, None, lambda v: v)
    for name, value in seen.items():
        torch.testing.assert_close(cache[name], value, rtol=1e-4, atol=1e-4, msg=name)
    base = m.run_with_hooks(x)
    torch.testing.assert_close(base, plain, rtol=1e-4, atol=1e-5)
    for name in names:
        found = m.run_with_hooks(x, [(name, noise)])
        _, expected = edited_forward(m, x, name, noise)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5, msg=name)
        assert (found - base).abs().max() > 1e-3, name


@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "dinov3"])
@torch.no_grad()
def test_positions_of_other_image_sizes_are_the_interpolated_ones(model, family):
    m = model(family)
    x = torch.randn(N, 3, 5 * tiny.PATCH, 5 * tiny.PATCH, generator=torch.Generator().manual_seed(0))
    for name in ("hook_pos_embed", "blocks.1.attn.hook_z"):
        _, expected = edited_forward(m, x, name, lambda t: t * 1.5 + 0.1 * t.flip(-1))
        found = m.run_with_hooks(x, [(name, lambda t, hook: t * 1.5 + 0.1 * t.flip(-1))])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5, msg=name)


@torch.no_grad()
def test_check_of_a_model_for_large_images_takes_small_ones(tmp_path):
    config = hf.Dinov2Config(**{**tiny.BASE, "image_size": 520, "num_hidden_layers": 2}, **tiny.LABELS, mlp_ratio=2)
    torch.manual_seed(0)
    m = VisionModel(hf.Dinov2ForImageClassification(config), image_processor=tiny.processor(), device="cpu")
    sides = set()
    with m.hooks([("hook_full_embed", lambda t, hook: sides.add(t.shape[1]))]):
        findings = list(check(m))
    assert all(f.holds for f in findings), findings
    assert sides == {1 + 4 * 4}


@pytest.mark.parametrize("family", tiny.FIVE)
def test_shapes_are_those_of_the_table(model, family):
    m, x = model(family), tiny.pixels(N)
    _, cache = m.run_with_cache(x, m.hook_names())
    t, p, d, h = m.layout.n_prefix + 9, 9, tiny.WIDTH, tiny.HEADS
    expected = {
        "hook_embed": (N, p, d), "hook_pos_embed": (N, t, d), "hook_full_embed": (N, t, d), "hook_resid_pre": (N, t, d),
        "hook_resid_mid": (N, t, d), "hook_resid_post": (N, t, d), "hook_attn_out": (N, t, d), "hook_mlp_out": (N, t, d),
        "ln1.hook_scale": (N, t, 1), "ln2.hook_normalized": (N, t, d), "attn.hook_q": (N, t, h, d // h),
        "attn.hook_k": (N, t, h, d // h), "attn.hook_v": (N, t, h, d // h), "attn.hook_z": (N, t, h, d // h),
        "attn.hook_attn_scores": (N, h, t, t), "attn.hook_pattern": (N, h, t, t), "attn.hook_result": (N, t, h, d),
        "mlp.hook_pre": (N, t, 2 * d), "mlp.hook_post": (N, t, 2 * d), "hook_logits": (N, tiny.CLASSES),
        "hook_readout": (N, d * len(m.family.readouts)),
    }  # fmt: skip
    for name, shape in expected.items():
        inside = name.startswith(("attn.", "ln", "mlp.")) or name in (
            "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out",
        )  # fmt: skip
        full = f"blocks.2.{name}" if inside else name
        assert tuple(cache[full].shape) == shape, name
    assert ("hook_ln_pre" in cache) == (family == "clip")
    assert ("ln_final.hook_scale" in cache) == (family != "clip")
    pattern = cache["pattern", 1]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))


@pytest.mark.parametrize("family", list(tiny.BUILD))
@torch.no_grad()
def test_reading_changes_no_bit_and_nothing_stays_behind(model, family):
    m, x = model(family), tiny.pixels(N)
    key = "last_hidden_state" if headless(family) else "logits"
    before = m._module(x)[key]
    m.run_with_cache(x)
    with m.hooks([(m.hook_names(), lambda t, hook: None)]):
        assert torch.equal(m(x)[key], before)
    with m.hooks([("blocks.1.hook_resid_post", noise)]):
        assert not torch.equal(m(x)[key], before)
    assert torch.equal(m(x)[key], before)
    assert m._edits == []


@torch.no_grad()
def test_gated_mlps(tmp_path):
    config = hf.Dinov2Config(**tiny.BASE, **tiny.LABELS, mlp_ratio=2, use_swiglu_ffn=True)
    torch.manual_seed(0)
    m, x = VisionModel(hf.Dinov2ForImageClassification(config), image_processor=tiny.processor()), tiny.pixels(N)
    for name in ("blocks.1.mlp.hook_pre", "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"):
        _, expected = edited_forward(m, x, name, noise)
        torch.testing.assert_close(m.run_with_hooks(x, [(name, noise)]), expected, rtol=1e-4, atol=1e-5)
    _, cache = m.run_with_cache(x, "blocks.1.mlp.hook_post")
    mlp = m._module.dinov2.encoder.layer[1].mlp
    torch.testing.assert_close(mlp.down_proj(cache["post", 1]) * 1.0, _mlp_output(m, x), rtol=1e-4, atol=1e-5)


def _mlp_output(m, x):
    with m.trace(x):
        out = m.blocks[1].mlp.output.save()
    return out


@torch.no_grad()
def test_another_image_size_has_interpolated_positions():
    m = VisionModel(tiny.build("dinov2"))
    x = torch.randn(2, 3, 32, 40)
    _, cache = m.run_with_cache(x, ["hook_embed", "hook_pos_embed", "hook_full_embed"])
    cls = m._module.dinov2.embeddings.cls_token.expand(2, -1, -1)
    torch.testing.assert_close(torch.cat([cls, cache["embed"]], 1) + cache["pos_embed"], cache["full_embed"])


# -- run_with_cache ----------------------------------------------------------------


@torch.no_grad()
def test_only_what_is_asked_for_is_kept(model):
    m, x = model("vit"), tiny.pixels(N)
    assert list(m.run_with_cache(x, "hook_embed")[1]) == ["hook_embed"]
    names = ["blocks.3.hook_mlp_out", "blocks.0.attn.hook_result"]
    assert list(m.run_with_cache(x, names)[1]) == names[::-1]
    found = list(m.run_with_cache(x, lambda n: n.endswith("resid_post"))[1])
    assert found == [f"blocks.{i}.hook_resid_post" for i in range(4)]
    everything = list(m.run_with_cache(x)[1])
    assert everything == [n for n in m.hook_names() if not n.endswith("hook_result")]
    with pytest.raises(
        RequestError, match=r"no hook 'blocks.1.hook_pattern'.*close ones: .*blocks.1.attn.hook_pattern"
    ):
        m.run_with_cache(x, "blocks.1.hook_pattern")


@torch.no_grad()
@pytest.mark.parametrize(("stop", "ran"), [(2, 2), (-1, 3), (0, 0)])
def test_stop_at_layer_really_stops(model, stop, ran):
    m, x = model("beit"), tiny.pixels(N)
    calls = []
    blocks = m._module.get_submodule(m.family.blocks)
    handles = [b.mlp.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, b in enumerate(blocks)]
    resid, cache = m.run_with_cache(x, stop_at_layer=stop)
    for handle in handles:
        handle.remove()
    assert calls == list(range(ran))
    _, full = m.run_with_cache(x, f"blocks.{ran}.hook_resid_pre")
    assert torch.equal(resid, full["resid_pre", ran])
    assert {n.split(".")[1] for n in cache if n.startswith("blocks.")} == {str(i) for i in range(ran)}
    with pytest.raises(RequestError, match="stop_at_layer 4 was given; -4 to 3"):
        m.run_with_cache(x, stop_at_layer=4)


@torch.no_grad()
def test_shorthands_batch_axis_and_saving(model, tmp_path):
    m, x = model("deit"), tiny.pixels(1)
    logits, cache = m.run_with_cache(x, remove_batch_dim=True)
    assert logits.shape == (tiny.CLASSES,)
    assert cache["resid_post", -1].shape == (11, tiny.WIDTH)
    assert torch.equal(cache["pattern", 3], cache["blocks.3.attn.hook_pattern"])
    assert torch.equal(cache["scale", 1, "ln2"], cache["blocks.1.ln2.hook_scale"])
    assert torch.equal(cache["embed"], cache["hook_embed"])
    assert ("q", 0) in cache
    assert ("result", 0) not in cache
    with pytest.raises(KeyError, match="names_filter"):
        cache["result", 0]
    assert cache.stack_activation("resid_mid").shape == (4, 11, tiny.WIDTH)
    cache.save(tmp_path / "c.safetensors")
    again = ActivationCache.load(tmp_path / "c.safetensors", m)
    assert sorted(again) == sorted(cache)
    assert all(torch.equal(again[n], cache[n]) for n in cache)
    assert torch.equal(again.decompose_resid(), cache.decompose_resid())
    with pytest.raises(RequestError, match="one image; 3"):
        m.run_with_cache(tiny.pixels(3), remove_batch_dim=True)


# -- the residual stream taken apart -------------------------------------------------


@pytest.mark.parametrize("family", list(tiny.BUILD))
@torch.no_grad()
def test_components_sum_to_the_residual_stream(model, family):
    m, x = model(family), tiny.pixels(N)
    _, cache = m.run_with_cache(x)
    for layer, stream in ((None, cache["resid_post", 3]), (2, cache["resid_pre", 2])):
        parts, labels = cache.decompose_resid(layer, return_labels=True)
        torch.testing.assert_close(parts.sum(0), stream, rtol=1e-5, atol=1e-5)
        assert len(labels) == len(parts)
        for kind in ({}, {"expand_neurons": True}):
            parts, labels = cache.get_full_resid_decomposition(layer, return_labels=True, **kind)
            torch.testing.assert_close(parts.sum(0), stream, rtol=1e-5, atol=1e-4)
            assert len(labels) == len(parts) == len(set(labels))
        heads, labels = cache.stack_head_results(layer, incl_remainder=True, return_labels=True)
        torch.testing.assert_close(heads.sum(0), stream, rtol=1e-5, atol=1e-5)
        assert labels[:3] == ["L0H0", "L0H1", "L1H0"]
    _, with_results = m.run_with_cache(x, [f"blocks.{i}.attn.hook_result" for i in range(4)])
    torch.testing.assert_close(with_results.stack_head_results(), cache.stack_head_results(), rtol=1e-5, atol=1e-5)
    grown, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels[:2] == ["0_pre", "0_mid"]
    assert labels[-1] == "final_post"
    torch.testing.assert_close(grown[-1], cache["resid_post", 3])


@pytest.mark.parametrize("family", [f for f in tiny.BUILD if not headless(f)])
@torch.no_grad()
def test_attributions_sum_to_the_logit(model, family):
    m, x = model(family), tiny.pixels(N)
    logits, cache = m.run_with_cache(x)
    labels = torch.arange(N) % logits.shape[1]
    attributions = cache.logit_attrs(cache.get_full_resid_decomposition(), labels)
    total = attributions.sum(0) + cache.logit_constant(labels)
    torch.testing.assert_close(total, logits[torch.arange(N), labels], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_norm_of_a_stack_with_frozen_scale_sums_to_the_norm(model):
    m, x = model("dinov2"), tiny.pixels(N)
    _, cache = m.run_with_cache(x)
    for layer, mlp_input, stream, out in (
        (1, False, 1, ("normalized", 1, "ln1")),
        (2, True, None, ("normalized", 2, "ln2")),
    ):
        parts = cache.decompose_resid(layer)
        if stream is None:
            parts = torch.cat([parts, cache["attn_out", 2][None]])
        norm = getattr(m.blocks[layer], out[2])._module
        normed = cache.apply_ln_to_stack(parts, layer, mlp_input=mlp_input).sum(0) + norm.bias
        torch.testing.assert_close(normed, cache[out], rtol=1e-4, atol=1e-5)


# -- hooks -------------------------------------------------------------------------


@torch.no_grad()
def test_hooks_edit_in_place_return_or_leave(model):
    m, x = model("clip"), tiny.pixels(N)
    name = "blocks.1.attn.hook_z"

    def in_place(tensor, hook):
        assert hook == HookPoint(name)
        assert hook.layer() == 1
        tensor[:, :, 0] = 0

    def returned(tensor, hook):
        new = tensor.clone()
        new[:, :, 0] = 0
        return new

    a, b = (m.run_with_hooks(x, [(name, f)]) for f in (in_place, returned))
    assert torch.equal(a, b)
    assert not torch.equal(a, m.run_with_hooks(x))
    twice = m.run_with_hooks(x, [(name, in_place), (lambda n: n == name, lambda t, hook: t * 2)])
    assert torch.equal(twice, m.run_with_hooks(x, [(name, lambda t, hook: returned(t, hook) * 2)]))
    with pytest.raises(RequestError, match="close ones"):
        m.run_with_hooks(x, [("blocks.1.hook_z", in_place)])
    with pytest.raises(RequestError, match=r"returned shape \(3,\)"):
        m.run_with_hooks(x, [(name, lambda t, hook: t[:, 0, 0, 0])])
    assert m._edits == []


@torch.no_grad()
def test_hooks_work_in_inference_mode_and_tell_edits_from_looks(model):
    vit = model("vit")
    images = torch.randn(2, 3, tiny.SIZE, tiny.SIZE)
    seen = []

    def look(value, hook):
        seen.append(value.shape)

    def edit(value, hook):
        value[:, 0] = 0.0

    with torch.no_grad():
        plain = vit.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_post", look)])
        edited = vit.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_post", edit)])
    with torch.inference_mode():
        assert torch.equal(vit.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_post", look)]), plain)
        assert torch.equal(vit.run_with_hooks(images, fwd_hooks=[("blocks.1.hook_resid_post", edit)]), edited)
    assert len(seen) == 2
    assert not torch.equal(plain, edited)


def test_hooks_and_traces_mix(model):
    m, x = model("vit"), tiny.pixels(N)
    with m.hooks([("blocks.1.hook_resid_post", noise)]):
        with m.trace(x):
            m.blocks[2].cls = m.blocks[2].cls.flip(0)
            mixed = m.logits.save()
        _, cache = m.run_with_cache(x, "blocks.1.hook_resid_post")
    with m.trace(x):
        m.blocks[1].resid = noise(m.blocks[1].resid)
        m.blocks[2].cls = m.blocks[2].cls.flip(0)
        traced = m.logits.save()
    assert torch.equal(mixed, traced)
    _, plain = m.run_with_cache(x, "blocks.1.hook_resid_post")
    assert torch.equal(cache["resid_post", 1], noise(plain["resid_post", 1]))
    with m.hooks([("blocks.0.hook_mlp_out", noise)]), m.hooks([("blocks.1.hook_mlp_out", noise)]):
        nested = m(x).logits
    assert torch.equal(nested, m.run_with_hooks(x, [(["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"], noise)]))


@torch.no_grad()
def test_an_error_in_a_hook_comes_through_and_leaves_the_model(model):
    m, x = model("vit"), tiny.pixels(N)

    def fail(tensor, hook):
        raise ZeroDivisionError("in my hook")

    with pytest.raises(ZeroDivisionError, match="in my hook"):
        m.run_with_hooks(x, [("blocks.1.hook_mlp_out", fail)])
    assert torch.equal(m(x).logits, m._module(x).logits)


# -- gradients ---------------------------------------------------------------------

EVERYWHERE = [
    "hook_embed", "hook_pos_embed", "hook_full_embed", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid",
    "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.1.ln1.hook_scale", "blocks.1.ln2.hook_normalized",
    "blocks.1.attn.hook_q", "blocks.1.attn.hook_attn_scores", "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_z",
    "blocks.1.attn.hook_result", "blocks.1.mlp.hook_pre", "blocks.1.mlp.hook_post", "blocks.3.hook_resid_post",
]  # fmt: skip


@pytest.mark.parametrize("family", tiny.FIVE)
def test_gradients_are_the_slope_of_the_output(model, family):
    """Against central differences through run_with_hooks, one direction per name."""
    m, x = VisionModel(tiny.build(family).double()), tiny.pixels(2).double()
    loss = lambda logits: logits[:, 2].sum()  # noqa: E731
    for name in EVERYWHERE:
        _, cache = m.run_with_cache(x, name, incl_bwd=loss)
        direction = torch.randn(cache[name].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            up, down = (
                loss(m.run_with_hooks(x, [(name, lambda t, hook, s=s, d=direction: t + s * d)])) for s in (step, -step)
            )
        slope, grad = (up - down) / (2 * step), (cache.grad(name) * direction).sum()
        torch.testing.assert_close(slope, grad, rtol=1e-4, atol=1e-7, msg=f"{family} {name}: {slope} {grad}")


def test_backward_hooks_see_and_change_gradients(model):
    m, x = model("vit"), tiny.pixels(2)
    name, seen = "blocks.2.hook_resid_post", {}
    logits = m.run_with_hooks(x, bwd_hooks=[(name, lambda grad, hook: seen.update({hook.name: grad.clone()}))])
    logits[:, 1].sum().backward()
    _, cache = m.run_with_cache(x, name, incl_bwd=lambda out: out[:, 1].sum())
    torch.testing.assert_close(seen[name], cache.grad("blocks.2.hook_resid_post"))
    early = "blocks.0.hook_resid_post"
    zeroed = {}
    logits = m.run_with_hooks(
        x,
        bwd_hooks=[
            (name, lambda grad, hook: grad * 0),
            (early, lambda grad, hook: zeroed.update({hook.name: grad.clone()})),
        ],
    )
    logits.sum().backward()
    assert zeroed[early].abs().max() == 0
    with pytest.raises(KeyError, match="incl_bwd"):
        m.run_with_cache(x, name)[1].grad(name)
