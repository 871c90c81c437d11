"""Token views in a trace: gradients pass through them, and what was saved stays what it was."""

import pytest
import tiny
import torch

GROUPS = {"cls": 0, "registers": slice(1, 4), "patches": slice(4, None), "resid": slice(None)}


@pytest.mark.parametrize("group", GROUPS)
def test_a_view_has_the_gradient_of_its_part_of_the_stream(model, group):
    m, x = model("dinov2-registers"), tiny.pixels(2)
    with m.trace(x):
        stream = m.blocks[1].output
        logits = m.logits
        with logits[:, 2].sum().backward():
            whole = stream.grad.save()
    with m.trace(x):
        part = getattr(m.blocks[1], group)
        logits = m.logits.save()
        with logits[:, 2].sum().backward():
            found = part.grad.save()
    assert found.abs().sum() > 0
    torch.testing.assert_close(found, whole[:, GROUPS[group]])
    assert torch.equal(logits, m(x).logits)


def test_an_edited_view_has_the_gradient_after_the_edit(model):
    m, x = model("vit"), tiny.pixels(2)
    with m.trace(x):
        cls = m.blocks[1].cls
        cls[:] = cls * 2
        logits = m.logits
        with logits[:, 2].sum().backward():
            found = cls.grad.save()

    kept = []

    def edit(_module, _inputs, out):
        out = out.detach().clone()
        out[:, 0] *= 2
        kept.append(out.requires_grad_())
        return kept[0]

    handle = m.blocks[1]._module.register_forward_hook(edit)
    (expected,) = torch.autograd.grad(m._module(x).logits[:, 2].sum(), kept)
    handle.remove()
    torch.testing.assert_close(found, expected[:, 0])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("saved", GROUPS)
@pytest.mark.parametrize("edited", GROUPS)
def test_a_saved_view_is_what_it_was(model, saved, edited, grad):
    m, x = model("dinov2-registers"), tiny.pixels(2)
    with torch.set_grad_enabled(grad), m.trace(x), torch.set_grad_enabled(grad):
        block = m.blocks[1]
        before = getattr(block, saved).save()
        getattr(block, edited)[:] = 0
        after = block.output.save()
    with torch.no_grad(), m.trace(x):
        intact = m.blocks[1].output.save()
    assert torch.equal(before, intact[:, GROUPS[saved]])
    assert not after[:, GROUPS[edited]].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_two_edits_of_one_view_and_of_two_both_land(model, mode):
    m, x = model("vit"), tiny.pixels(2)
    with mode(), m.trace(x), mode():
        block = m.blocks[1]
        block.cls[:, :4] = 1
        block.cls[:, 4:8] = block.cls[:, :4] + 1
        block.patches[:, 0] = 3
        out = block.output.save()
    assert (out[:, 0, :4] == 1).all()
    assert (out[:, 0, 4:8] == 2).all()
    assert (out[:, 1] == 3).all()


def test_saved_logits_are_what_they_were(model):
    m, x = model("vit"), tiny.pixels(2)
    with torch.no_grad(), m.trace(x):
        before = m.logits.save()
        m.logits[:] = 0
        after = m.output.logits.save()
    assert torch.equal(before, m(x).logits)
    assert not after.any()
