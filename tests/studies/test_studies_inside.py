"""The machinery of single studies on tiny models, against plain torch."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F
from transformers import BeitConfig, BeitForImageClassification

from clsinterp.checks.plain_hooks import edited_forward
from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.studies.causality import token_probes
from clsinterp.studies.causality.setup import CountingSetup, partner
from clsinterp.studies.class_space import cuts as perturbation
from clsinterp.studies.class_space import memories
from clsinterp.studies.class_space import reading as class_space
from clsinterp.studies.readouts import fresh, learned
from clsinterp.studies.setup import Batch, Setup
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import Edit, on, variants
from clsinterp.vision_model import VisionModel


@pytest.fixture(scope="module")
def setup(model, folder):
    """family -> setup with 20 train and 12 test images."""
    made = {}

    def get(family: str) -> Setup:
        if family not in made:
            splits = open_data(str(folder), limit=20)
            train, test = splits[0], splits[1].keep(list(range(12)))
            made[family] = Setup.of(family, model(family), train, test, batch_size=8, workers=0)
        return made[family]

    return get


def first(setup):
    return next(setup.batches(setup.test))


def naive_lens(setup, tokens, part):
    """Logits of tokens through the norm and the classifier's own weights, family by family."""
    m, d = setup.model, setup.model.d_model
    if m.lens_norm is not None:
        tokens = m.lens_norm(tokens)
    head = m.heads[0]
    if m.family.name == "dinov2":
        half = slice(0, d) if part == "cls" else slice(d, 2 * d)
        return tokens @ head.weight[:, half].T + head.bias
    return head(tokens)


@pytest.mark.parametrize("family", tiny.FIVE)
@torch.no_grad()
def test_tokens_in_class_space_equal_a_naive_reading(setup, family):
    s = setup(family)
    batch, prefix = first(s), s.model.layout.n_prefix
    found = class_space.read(s, batch)
    seen = edited_forward(s.model, batch.pixels, None, lambda v: v)[0]
    for i in range(tiny.LAYERS):
        stream = {"pre": seen[f"blocks.{i}.hook_resid_pre"], "post": seen[f"blocks.{i}.hook_resid_post"],
                  "attn": seen[f"blocks.{i}.hook_attn_out"], "mlp": seen[f"blocks.{i}.hook_mlp_out"]}  # fmt: skip
        for n in range(len(batch)):
            target = int(batch.targets[n])
            for t, where, part in ((0, 0, "cls"), (1, prefix, "patches"), (9, prefix + 8, "patches")):
                logits = {k: naive_lens(s, h[n, where], part) for k, h in stream.items()}
                order = logits["post"].argsort(descending=True).tolist()
                assert int(found.rank[i, n, t]) == order.index(target)
                assert float(found.logit[i, n, t]) == pytest.approx(float(logits["pre"][target]), abs=1e-4)
                assert float(found.logit[i + 1, n, t]) == pytest.approx(float(logits["post"][target]), abs=1e-4)
                for c, name in enumerate(("attn", "mlp")):
                    assert float(found.added[c, i, n, t]) == pytest.approx(float(logits[name][target]), abs=1e-4)
                    assert int(found.answer_added[c, i, n, t]) == int(logits[name].argmax())
                tops = {k: int(v.argmax()) for k, v in logits.items()}
                lonely = tops["post"] not in (tops["attn"], tops["mlp"], tops["pre"])
                assert bool(class_space.matches(found)["none"][i, n, t]) == lonely


@pytest.mark.parametrize("family", tiny.FIVE)
@torch.no_grad()
def test_class_value_agreement_is_the_largest_cosine(setup, family):
    i, module = 2, tiny.build(family)
    for name, p in module.named_parameters():
        if "lambda" in name:
            p.uniform_(0.1, 2)  # LayerScale starts the same for every dimension, which a cosine cannot see
    s = replace(setup(family), model=VisionModel(module, image_processor=tiny.processor()))
    s = replace(s, head=Head.of(s.model.family, s.model.heads))
    block = module.get_submodule(s.model.family.blocks)[i]
    weights = {"vit": ("attention.o_proj", "mlp.fc2"), "clip": ("self_attn.out_proj", "mlp.fc2")}
    for path, name in zip(weights.get(family, weights["vit"]), ("attn", "mlp"), strict=True):
        values = block.get_submodule(path).weight.double().numpy()
        scale = {"beit": {"attn": "lambda_1", "mlp": "lambda_2"},
                 "dinov2": {"attn": "layer_scale1.lambda1", "mlp": "layer_scale2.lambda1"}}.get(family)  # fmt: skip
        if scale:
            values = values * block.get_parameter(scale[name]).double().numpy()[:, None]
        classes = module.get_submodule(s.model.family.heads[0]).weight.double().numpy()[:, : tiny.WIDTH]
        expected = [max(c @ v / np.linalg.norm(c) / np.linalg.norm(v) for v in values.T) for c in classes]
        found = memories.class_value_agreement(s, i, name)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_random_twin_has_the_shape_and_not_the_weights(setup):
    s = setup("vit")
    state = torch.random.get_rng_state()
    twin = s.twin()
    assert torch.equal(state, torch.random.get_rng_state())
    ours, theirs = (dict(x.model._module.named_parameters()) for x in (s, twin))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert not torch.equal(ours["classifier.weight"], theirs["classifier.weight"])
    again = dict(s.twin().model._module.named_parameters())
    assert all(torch.equal(theirs[k], again[k]) for k in theirs)


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "clip", "dinov2-registers"])
@torch.no_grad()
def test_leaving_patches_out_equals_dropping_their_tokens(setup, family):
    s = setup(family)
    m, x = s.model, first(s).pixels
    keep = torch.rand(len(x), 9, generator=torch.Generator().manual_seed(0)) < 0.5
    keep[:, 3] = True
    found = perturbation.with_patches(m, x, keep)[0]
    prefix = m.layout.n_prefix
    for i in range(len(x)):
        h = plain_forward(m, x[i : i + 1])[0][-1]
        h = torch.cat([h[:, :prefix], h[:, prefix:][:, keep[i]]], dim=1)
        for block in m._module.get_submodule(m.family.blocks):
            h = block(h, attention_mask=None) if family == "clip" else block(h)
        norm = m.lens_norm or (lambda t: t)
        tokens = {"cls": norm(h)[:, 0], "distill": norm(h)[:, 1], "patch_mean": norm(h)[:, prefix:].mean(1)}
        expected = torch.cat([tokens[r] for r in m.family.readouts], dim=-1)
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_leaving_patches_out_works_with_relative_positions(setup):
    s = setup("beit")
    m, x = s.model, first(s).pixels
    every = torch.ones(len(x), 9, dtype=torch.bool)
    torch.testing.assert_close(perturbation.with_patches(m, x, every)[0], plain_forward(m, x)[1], rtol=1e-4, atol=1e-5)
    # A patch that takes no part does not matter: its pixels may be anything.
    other = x.clone()
    other[:, :, :8, :8] = 5
    keep = every.clone()
    keep[:, 0] = False
    a, b = (perturbation.with_patches(m, v, keep)[0] for v in (x, other))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a, plain_forward(m, x)[1], atol=1e-3)


@pytest.mark.parametrize("family", tiny.FIVE)
@pytest.mark.parametrize("cut", list(perturbation.CUTS))
@torch.no_grad()
def test_cut_attention_equals_patterns_edited_in_plain_torch(setup, family, cut):
    s = setup(family)
    m, x = s.model, first(s).pixels
    cls, prefix = m.layout.index("cls"), m.layout.n_prefix
    h = {}

    def edit(pattern):
        pattern = pattern.clone()
        for t in range(prefix, pattern.shape[-1]):
            if cut.endswith("CLS"):
                pattern[:, :, t, cls] = 0
            else:
                pattern[:, :, t] = 0
                pattern[:, :, t, t] = 1
        return pattern

    # plain torch edits one place at a time, so the claim is checked on the last block with the others cut by hooks
    name = "blocks.3.attn.hook_pattern"
    hooks = [(f"blocks.{i}.attn.hook_pattern", perturbation.CUTS[cut](m)) for i in range(3)]
    with m.hooks(hooks):
        h["stream"] = m.run_with_cache(x, "blocks.3.hook_resid_pre")[1]["blocks.3.hook_resid_pre"]
    found = perturbation.cut_attention(s, first(s), cut)[1]
    swapped = m.run_with_hooks(
        x, [("blocks.3.hook_resid_pre", lambda v, hook: h["stream"]), (name, lambda v, hook: edit(v))]
    )
    readout = perturbation.cut_attention(s, first(s), cut)[0]
    torch.testing.assert_close(s.head(readout), swapped, rtol=1e-4, atol=1e-4)
    one = edited_forward(m, x, "blocks.0.attn.hook_pattern", edit)[1]
    single = m.run_with_hooks(x, [("blocks.0.attn.hook_pattern", perturbation.CUTS[cut](m))])
    torch.testing.assert_close(single, one, rtol=1e-4, atol=1e-4)
    assert found.shape == h["stream"].shape


@pytest.mark.parametrize("family", tiny.FIVE)
def test_lens_relevance_is_the_change_of_each_blocks_lens_loss(setup, family):
    """By finite differences: a small change of the pattern in one block, the lens on what that block's attention writes."""
    s = setup(family)
    m, batch = s.model, first(s)
    cls, prefix, patch = m.layout.index("cls"), m.layout.n_prefix, 4

    def loss(i, step):
        def nudge(pattern):
            pattern = pattern.double().clone()
            pattern[:, :, cls, prefix + patch] += step
            return pattern.float()

        seen = {}

        def watch(value, hook):
            seen["out"] = value

        name = f"blocks.{i}.attn.hook_pattern"
        with torch.no_grad():
            m.run_with_hooks(batch.pixels, [(name, lambda v, hook: nudge(v)), (f"blocks.{i}.hook_attn_out", watch)])
            logits = naive_lens(s, seen["out"][:, cls], "cls" if family != "clip" else "patches")
        return F.cross_entropy(logits.double(), batch.targets, reduction="none")

    step = 1e-2
    # every head's pattern moves by `step`, so the difference is the sum over heads
    slope = sum((loss(i, step) - loss(i, -step)) / (2 * step) for i in s.layers)
    found = perturbation.lens_relevance(s, batch)[:, patch]
    torch.testing.assert_close(found.double(), -slope, rtol=0.03, atol=3e-3)


@pytest.mark.parametrize("family", tiny.FIVE)
def test_input_gradient_times_embedding_sums_to_the_directional_derivative(setup, family):
    s = setup(family)
    m, batch = s.model, first(s)
    found = perturbation.input_gradient(s, batch).sum(1)

    def logit(scale):
        with torch.no_grad():
            out = m.run_with_hooks(batch.pixels, [("hook_embed", lambda v, hook: v * scale)])
        return out.gather(1, batch.targets.unsqueeze(1)).squeeze(1).double()

    slope = (logit(1 + 1e-3) - logit(1 - 1e-3)) / 2e-3
    torch.testing.assert_close(found.double(), slope, rtol=0.02, atol=0.02)


@torch.no_grad()
def test_per_token_probes_equal_ridge_on_stored_tokens(setup):
    s = setup("deit")
    tokens = [0, 2, 10]
    stored = {name: torch.cat([torch.stack([plain_forward(s.model, b.pixels)[0][i] for i in s.layers], 1)
                               for b in s.batches(split)]) for name, split in (("train", s.train), ("test", s.test))}  # fmt: skip
    found = token_probes.probe_ranks(s, tokens)
    labels = torch.tensor(s.train.labels)
    for layer in s.layers:
        for t, token in enumerate(tokens):
            stats = RidgeStats.zeros(1, tiny.WIDTH, s.n_classes)
            stats.update(stored["train"][:, layer, token].unsqueeze(0), labels, torch.arange(len(labels)))
            order = solve(stats).scores(stored["test"][:, layer, token], 0).argsort(-1, descending=True)
            expected = [order[i].tolist().index(label) for i, label in enumerate(s.test.labels)]
            assert found[layer, t].tolist() == expected
    assert token_probes.spread(50, 3) == [0, 24, 49] or token_probes.spread(50, 3) == [0, 25, 49]
    assert token_probes.spread(4, 10) == [0, 1, 2, 3]


@torch.no_grad()
def test_captured_groups_are_means_over_their_tokens(setup):
    s = setup("dinov2-registers")
    x = first(s).pixels
    groups = ("cls", "registers", "patches")
    found = dict(zip(groups, capture(s.model, x, (-1, 1), groups)[0], strict=True))
    for i, layer in enumerate((-1, 1)):
        h = plain_forward(s.model, x)[0][layer]
        for name, part in (("cls", h[:, 0]), ("registers", h[:, 1:4].mean(1)), ("patches", h[:, 4:].mean(1))):
            torch.testing.assert_close(found[name][i], part, rtol=1e-4, atol=1e-5)


def test_moments_are_numpys(setup):
    x = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(0))
    moments = fresh.Moments()
    for part in x.split(8, dim=1):
        moments.update(part)
    np.testing.assert_allclose(moments.mean.numpy(), x.double().mean(1).numpy())
    for layer in range(2):
        np.testing.assert_allclose(
            moments.covariance[layer].numpy(), np.cov(x[layer].double().numpy().T, bias=True), atol=1e-12
        )
    draw = fresh.gaussian(moments, (3, 7))(7, 4000, (0, 1))
    np.testing.assert_allclose(np.cov(draw.numpy().T), moments.covariance[1].numpy(), atol=0.12)
    assert torch.equal(fresh.constant(moments, (3, 7))(3, 4, 0), moments.mean[0].expand(4, -1))


@pytest.mark.parametrize("family", tiny.FIVE)
def test_generators_learn_through_frozen_blocks(setup, family):
    s = setup(family)
    entering, moments = (-1, 0, 1, 2), fresh.Moments()
    for batch in s.batches(s.train):
        moments.update(capture(s.model, batch.pixels, entering)[0])
    before = {k: v.clone() for k, v in s.model._module.state_dict().items()}
    made, losses = learned.learn(s, moments, entering, n_epochs=5, samples=2)
    assert list(made) == ["learned constant", "generator", "augment", "calibrated"]
    for kind, found in losses.items():
        # the temperature of the calibrated one falls meanwhile: its loss is of answers that sharpen
        assert found[-1] < found[0] or kind == "calibrated", kind
        moved = made[kind].start[0] - moments.mean[0].float()
        assert moved.abs().max() > 0, kind
    assert all(torch.equal(v, before[k]) for k, v in s.model._module.state_dict().items())
    assert all(p.requires_grad for p in s.model._module.parameters())
    batch = first(s)
    tokens = {layer: made["generator"].sample(layer, len(batch), (0, layer + 1)) for layer in entering}
    found = learned.through_next_block(s, batch, tokens)
    for layer in entering:
        states = plain_forward(s.model, batch.pixels, layer, 0, lambda old, t=tokens[layer]: t)[0]
        torch.testing.assert_close(found[layer], states[layer + 1][:, 0], rtol=1e-4, atol=1e-5)


def test_generators_learn_the_same_twice(setup):
    s, moments = setup("dinov2"), fresh.Moments()
    for batch in s.batches(s.train):
        moments.update(capture(s.model, batch.pixels, (-1, 2))[0])
    one, other = (learned.learn(s, moments, (-1, 2), n_epochs=2, samples=2)[1] for _ in range(2))
    assert one == other


WAYS = {
    "capture": lambda m, x, y: capture(m, x, (0,)),
    "variants": lambda m, x, y: variants(m, x, []),
    "groups": lambda m, x, y: capture(m, x, (0,), ("cls", "patches")),
    "fork": lambda m, x, y: fork(m, x, y, y * 0, Readers(Head.of(m.family, m.heads)), layers=(0,)),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_gradients_work_after_anything_else_in_beit(setup, way):
    """BEiT caches an index for each image size; one made in inference mode would break every later gradient."""
    side = tiny.PATCH * (11 + list(WAYS).index(way))  # a size that nothing has cached yet
    config = {**tiny.BASE, "image_size": side}
    module = BeitForImageClassification(
        BeitConfig(**config, **tiny.LABELS, use_relative_position_bias=True, use_mean_pooling=False)
    )
    m = VisionModel(module.eval(), image_processor=tiny.processor(), image_size=side)
    x, y = torch.randn(2, 3, side, side), torch.tensor([0, 1])
    WAYS[way](m, x, y)
    s = replace(setup("beit"), model=m, head=Head.of(m.family, m.heads))
    assert perturbation.input_gradient(s, Batch(0, x, y, y)).isfinite().all()


def test_counting_pairs_stand_side_by_side_for_every_model(checkpoint, folder):
    s = CountingSetup.open(str(checkpoint("dinov2")), str(folder), limit=6, batch_size=8, workers=0)
    assert s.match.how == "fit"
    assert (len(s.train), len(s.test), s.n_classes) == (12, 12, 6)
    assert partner(4).tolist() == [1, 0, 3, 2]
    for batch in s.batches(s.test):
        masks = s.masks(s.test_pairs, batch)
        patches = [masks[name] for name in ("removed object", "other objects", "background")]
        assert torch.equal(torch.stack(patches).sum(0), masks["all patches"].long())
        assert torch.equal(masks["CLS"].nonzero()[:, 1], torch.zeros(len(batch), dtype=torch.long))
        assert torch.equal(batch.labels[1::2], batch.labels[::2] - 1)
        # corrupted and clean image differ in no pixel outside the patches of the removed object
        changed = (batch.pixels[::2] - batch.pixels[1::2]).abs().amax(1)
        cells = changed.unfold(1, 8, 8).unfold(2, 8, 8).amax((-1, -2)).flatten(1) > 0.2
        assert not (cells & ~masks["removed object"][::2, 1:]).any()
        means = s.group_means(s.test_pairs, batch)
        h = plain_forward(s.model, batch.pixels)[0][1]
        for i in range(0, len(batch), 2):
            for name in ("CLS", "removed object", "background"):
                expected = h[i][masks[name][i]].mean(0)
                torch.testing.assert_close(means[name, 1][i // 2], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match="even"):
        CountingSetup.open(str(checkpoint("dinov2")), str(folder), limit=6, batch_size=7)


def test_logits_of_edits_come_from_the_setups_classifier(setup):
    s = setup("dinov3")  # no classifier: fitted by ridge
    batch = first(s)
    found = s.outputs(batch, [Edit({1: on(0, lambda t: t.flip(0))})])
    for k, layer in ((0, None), (1, 1)):
        readout = plain_forward(s.model, batch.pixels, layer, 0, lambda t: t.flip(0))[1]
        torch.testing.assert_close(found[k], s.head(readout), rtol=1e-4, atol=1e-4)
