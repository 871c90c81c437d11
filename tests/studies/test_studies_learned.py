"""Tokens of one's own before a block, and how far the answers of many samples can be trusted."""

import math
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from torch.nn import functional as F

from clsinterp.checks.plain_sweep import plain_forward
from clsinterp.studies.readouts import calibration, learned
from clsinterp.studies.readouts.fresh import Moments
from clsinterp.studies.readouts.row import show, through
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, one, pick
from clsinterp.sweeps.capture import capture


@pytest.mark.parametrize("family", tiny.FIVE)
@torch.no_grad()
def test_a_token_in_front_sees_what_a_longer_sequence_shows(model, family):
    m, x = model(family), tiny.pixels(3)
    tokens = torch.randn(2, 3, tiny.WIDTH, generator=torch.Generator().manual_seed(2))
    shown, readout = show(m, x, [0, 2])
    for block in (0, 2):
        h = plain_forward(m, x)[0][block - 1]
        for k, token in enumerate(tokens):
            longer = torch.cat([token.unsqueeze(1), h], dim=1)
            module = m._module.get_submodule(m.family.blocks)[block]
            if family == "beit":  # the new token stands where the CLS token stands
                seen = {}
                hook = module.attention.register_forward_pre_hook(
                    lambda _m, args, kwargs, seen=seen: seen.update(
                        bias=kwargs.get("attention_mask", (*args, None)[1])
                    ),
                    with_kwargs=True,
                )
                plain_forward(m, x)
                hook.remove()
                index = [0, *range(h.shape[1])]
                bias = seen["bias"][:, :, index][..., index]
                after = module.layernorm_before(longer)
                after = module.attention(after, attention_mask=bias)[0] * module.lambda_1 + longer
                after = after + module.lambda_2 * module.mlp(module.layernorm_after(after))
            else:
                after = module(longer, attention_mask=None) if family == "clip" else module(longer)
            found = through(m, block, shown[block], tokens, augment=True)[k]
            torch.testing.assert_close(found, after[:, 0], rtol=1e-4, atol=1e-5)
            alone = plain_forward(m, x, block - 1, 0, lambda old, t=token: t)[0][block][:, 0]
            torch.testing.assert_close(through(m, block, shown[block], tokens)[k], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(readout, plain_forward(m, x)[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_cls_token_in_its_own_place_is_the_intact_one(model):
    m, x = model("dinov2"), tiny.pixels(3)
    states = plain_forward(m, x)[0]
    shown, _ = show(m, x, [1])
    torch.testing.assert_close(through(m, 1, shown[1], states[0][:, 0]), states[1][:, 0], rtol=1e-4, atol=1e-5)


def test_mean_answer_and_divergence_are_their_definitions():
    logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    parent = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    mean = sum((x / 0.5).softmax(-1) for x in logits) / 6
    torch.testing.assert_close(learned.mean_answer(logits, 0.5), mean)
    expected = F.kl_div(parent.log_softmax(-1), mean, reduction="batchmean")
    torch.testing.assert_close(learned.divergence(mean, parent.softmax(-1)).mean(), expected)
    certain = torch.eye(5)[:1]
    assert float(learned.divergence(certain, certain)) == 0
    assert (learned.temperature(0), learned.temperature(1)) == (1, pytest.approx(0.1))
    assert learned.temperature(0.5) == pytest.approx(math.sqrt(0.1))


def test_training_brings_the_mean_answer_to_the_models_own():
    """The loss alone, at a temperature that stays: gradient steps on samples' logits reach the parent."""
    parent = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    logits = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1)
    losses = []
    for _ in range(200):
        loss = learned.Calibrated.loss(None, logits, None, parent, done=0.5)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 < losses[0]
    torch.testing.assert_close(
        learned.mean_answer(logits, learned.temperature(0.5)), parent.softmax(-1), atol=0.02, rtol=0
    )


def test_calibration_error_is_a_loop_over_bins():
    random = torch.Generator().manual_seed(3)
    p = torch.rand(300, 4, generator=random).softmax(-1).double()
    p = p**4 / (p**4).sum(-1, keepdim=True)
    labels = torch.randint(4, (300,), generator=random)
    confidence, answer = p.max(-1)
    total = 0.0
    for low in np.arange(10) / 10:
        inside = [i for i in range(300) if low <= confidence[i] < low + 0.1]
        if inside:
            right = np.mean([float(answer[i] == labels[i]) for i in inside])
            total += abs(np.mean([float(confidence[i]) for i in inside]) - right) * len(inside) / 300
    assert calibration.expected_calibration_error(p, labels) == pytest.approx(total)
    # labels drawn from the distribution itself: calibrated, up to the draw
    drawn = torch.multinomial(p.repeat(50, 1), 1, generator=random).squeeze(1)
    assert calibration.expected_calibration_error(p.repeat(50, 1), drawn) < 0.02
    sure = torch.eye(4)[labels]
    assert calibration.expected_calibration_error(sure, labels) == 0


def test_counts_entropy_and_agreement():
    logits = torch.randn(50, 7, 4, generator=torch.Generator().manual_seed(4))
    counts = calibration.counted(logits)
    for i in range(7):
        answers = logits[:, i].argmax(-1).tolist()
        assert counts[i].tolist() == [answers.count(k) / 50 for k in range(4)]
        assert float(calibration.entropy(counts)[i]) == pytest.approx(stats.entropy(counts[i].numpy()))
        assert float(calibration.agreement(counts, torch.full((7,), 2))[i]) == answers.count(2) / 50
    groups = calibration.by_quantile(torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0]), parts=2)
    assert [g.tolist() for g in groups] == [[3, 1, 2], [0, 4]]


def test_samples_that_follow_the_model_are_measured_as_such():
    """Samples drawn from the model's own distribution, labels too: agreement, entropy and errors are what they must be."""
    random = torch.Generator().manual_seed(5)
    own = 2 * torch.randn(400, 3, generator=random)
    p = own.softmax(-1)
    draws = torch.multinomial(p, 200, replacement=True, generator=random).T
    logits = 100 * F.one_hot(draws, 3).float().unsqueeze(0)  # (layer, samples, n, classes)
    labels = torch.multinomial(p, 1, generator=random).squeeze(1)
    rows = Rows()
    calibration.measure(
        rows, [(logits[:, :, :150], own[:150], labels[:150]), (logits[:, :, 150:], own[150:], labels[150:])]
    )
    table = rows.table()
    assert one(table, curve="agreement")["value"] == pytest.approx(float(p.amax(-1).mean()), abs=0.01)
    assert one(table, curve="entropy")["value"] == pytest.approx(float(calibration.entropy(p).mean()), abs=0.02)
    assert one(table, curve="divergence")["value"] < 0.02
    for name in ("counts", "mean answer", "model"):
        assert one(table, curve=f"ece, {name}")["value"] < 0.08
    groups = pick(table, curve="agreement by entropy")
    assert [g["n"] for g in groups] == [80] * 5
    assert all(a["x"] < b["x"] and a["value"] > b["value"] for a, b in pairwise(groups))


@pytest.mark.parametrize("family", ["vit", "clip"])
def test_calibrated_tokens_come_closer_to_the_models_own_answers(checkpoint, folder, family):
    s = Setup.open(str(checkpoint(family)), str(folder), limit=20, batch_size=10, workers=0)
    entering, moments = (-1, 2), Moments()
    for batch in s.batches(s.train):
        moments.update(capture(s.model, batch.pixels, entering)[0])

    def apart(one):
        seen = [learned.answers(one, s, b, 32) for b in s.batches(s.train)]
        logits, own = torch.cat([x for x, _ in seen], dim=2), torch.cat([y for _, y in seen])
        return [float(learned.divergence(learned.mean_answer(x, learned.LAST), own.softmax(-1)).mean()) for x in logits]

    torch.manual_seed(0)
    untrained = learned.Calibrated(moments, entering, s.head.n_classes, samples=16)
    trained = learned.learn(s, moments, entering, n_epochs=12, samples=16)[0]["calibrated"]
    assert all(after < before for after, before in zip(apart(trained), apart(untrained), strict=True))


def test_a_fitted_classifier_leaves_the_calibrated_kind_out(checkpoint, folder):
    s = Setup.open(str(checkpoint("vit")), str(folder), limit=20, batch_size=10, workers=0, head="fit")
    moments = Moments()
    for batch in s.batches(s.train):
        moments.update(capture(s.model, batch.pixels, (0,))[0])
    made, losses = learned.learn(s, moments, (0,), n_epochs=1)
    assert list(made) == list(losses) == ["learned constant", "generator", "augment"]
