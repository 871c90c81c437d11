"""What a trace, a cache and a hook cost over a plain forward; how near a forward is to the machine's matrix multiply."""

import torch
from torch.nn import functional as F

from clsinterp.bench.models import BASE, N_LAYERS, random_model, random_pixels
from clsinterp.bench.timing import Row, compare


def forward_rows(quick: bool) -> list[Row]:
    """A base-size ViT, batch as in the other rows."""
    repeats = 5 if quick else 15
    model, pixels = random_model("vit", BASE), random_pixels(BASE)
    module = model._module

    @torch.inference_mode()
    def plain() -> None:
        module(pixels)

    @torch.inference_mode()
    def traced() -> None:
        with model.trace(pixels):
            model.logits.save()

    @torch.inference_mode()
    def plain_with_copies() -> None:
        kept = []
        blocks = module.get_submodule(model.family.blocks)
        hooks = [b.register_forward_hook(lambda _m, _a, output: kept.append(output.clone())) for b in blocks]
        module(pixels)
        for hook in hooks:
            hook.remove()

    @torch.inference_mode()
    def cached() -> None:
        model.run_with_cache(pixels, names_filter=lambda name: name.endswith("hook_resid_post"))

    @torch.inference_mode()
    def hooked() -> None:
        model.run_with_hooks(pixels, fwd_hooks=[("blocks.5.hook_resid_post", lambda tensor, hook: tensor)])

    name = f"vit {BASE}"
    return [
        compare(f"forward in a trace, {name}", "plain forward", "<= 1.05", traced, plain, repeats),
        compare(
            f"run_with_cache, all resid_post, {name}",
            "plain forward with copies",
            "<= 1.2",
            cached,
            plain_with_copies,
            repeats,
        ),
        compare(f"run_with_hooks, one hook, {name}", "plain forward", "<= 1.1", hooked, plain, repeats),
        compare(f"plain forward, {name}", "its matrix products alone", ">= 0.75", plain, _products(), repeats),
    ]


def _products():
    """The matrix products of a base-size forward, at its shapes, on arrays that are ready."""
    n, d = BASE.images, BASE.width
    n_tokens, heads = (BASE.side // BASE.patch) ** 2 + 1, d // 64
    x, wide = torch.randn(n * n_tokens, d), torch.randn(n * n_tokens, 4 * d)
    square, up, down = torch.randn(d, d), torch.randn(4 * d, d), torch.randn(d, 4 * d)
    bias, wide_bias = torch.randn(d), torch.randn(4 * d)
    q = torch.randn(n, heads, n_tokens, d // heads)
    patches, projection = torch.randn(n * (n_tokens - 1), 3 * BASE.patch**2), torch.randn(d, 3 * BASE.patch**2)

    @torch.inference_mode()
    def products() -> None:
        F.linear(patches, projection, bias)
        for _ in range(N_LAYERS):
            for _ in range(4):  # query, key, value, output
                F.linear(x, square, bias)
            q @ q.mT @ q
            F.linear(x, up, wide_bias)
            F.linear(wide, down, bias)

    return products
