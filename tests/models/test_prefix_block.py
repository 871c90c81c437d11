"""The last block for the tokens before the patches: the block's own values there, wherever read-outs need no more."""

import pytest
import timm_models
import tiny
import torch

from clsinterp import VisionModel
from clsinterp.models.prefix_block import prefix_block


def called_with(m, i, x):
    """What block `i` is called with in a forward of `x`, and its output."""
    seen = []
    block = m._module.get_submodule(m.family.blocks)[i]
    handle = block.register_forward_hook(lambda _m, *call: seen.append(call), with_kwargs=True)
    with torch.no_grad():
        m._module(x)
    handle.remove()
    return seen[0]


def assert_its_tokens(m, x):
    i, n = m.n_layers - 1, m.layout.n_prefix
    args, kwargs, expected = called_with(m, i, x)
    fewer = prefix_block(m, i)
    rows = []
    fewer.get_submodule(m.family.mlp).inner.register_forward_pre_hook(lambda _m, args: rows.append(args[0].shape[1]))
    with torch.no_grad():
        found = fewer(*args, **kwargs)
    assert rows == [n]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:, :n], expected[:, :n], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[:, n:], expected[:, n:], rtol=1e-2, atol=1e-2)  # what nobody reads is not there
    own = m._module.get_submodule(m.family.blocks)[i].parameters()
    assert set(map(id, fewer.parameters())) == set(map(id, own))  # shared, not copied


@pytest.mark.parametrize("family", ["vit", "deit", "beit", "deit-no-teacher", "vit-mae"])
def test_the_tokens_before_the_patches_are_the_blocks_own(model, family):
    m = model(family)
    assert m.reads_prefix
    assert_its_tokens(m, tiny.pixels(5))


@pytest.mark.parametrize("family", ["dinov2", "clip", "beit-mean", "siglip", "dinov2-registers", "dinov3"])
def test_who_pools_patches_needs_them(model, family):
    assert not model(family).reads_prefix


READ = [kind for kind in timm_models.MODELS if VisionModel(timm_models.build(kind)).reads_prefix]


@pytest.mark.parametrize("kind", READ)
def test_every_kind_of_attention_of_timm(kind):
    m = VisionModel(timm_models.build(kind))
    assert_its_tokens(m, torch.randn(3, 3, 32, 32))


def test_a_block_that_was_changed_is_left_alone(checkpoint):
    m = VisionModel(str(checkpoint("vit")), device="cpu")
    block = m._module.vit.layers[3]
    assert prefix_block(m, 3) is not None
    handle = block.mlp.fc1.register_forward_hook(lambda _m, _a, out: 2 * out)
    assert prefix_block(m, 3) is None
    handle.remove()
    assert prefix_block(m, 3) is not None
    block.attention.forward = lambda x, *args, **kwargs: (x, None)
    assert prefix_block(m, 3) is None


def test_a_forward_that_was_replaced_before_it_was_loaded():
    module = tiny.build("vit")
    mlp = module.vit.layers[3].mlp
    mlp.forward = lambda x: 0 * x
    assert prefix_block(VisionModel(module), 3) is None
