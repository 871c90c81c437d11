"""The slow twin of the fork: plain torch, one forward hook, one forward per layer. Used by `check`, tests and the bench."""

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from clsinterp.fork import EMBEDDINGS, Readers, column
from clsinterp.metrics import ranks
from clsinterp.model import VisionModel


@contextmanager
def _replacing(blocks: nn.ModuleList, layer: int, where, replace):
    """Replace the tokens at `where` after block `layer` (or before block 0) in every forward inside the context."""

    def change(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, where] = replace(h[:, where].clone())
        return h

    if layer == EMBEDDINGS:
        handle = blocks[0].register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    else:
        handle = blocks[layer].register_forward_hook(lambda _module, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _recording(blocks: nn.ModuleList, final: nn.Module | None, store: dict):
    """Keep each block's output, and the final norm's output, in `store`."""
    handles = [blocks[0].register_forward_pre_hook(lambda _m, args: store.__setitem__(EMBEDDINGS, args[0]))]
    handles += [
        block.register_forward_hook(lambda _m, _a, output, i=i: store.__setitem__(i, output)) for i, block in enumerate(blocks)
    ]
    if final is not None:
        handles.append(final.register_forward_hook(lambda _m, _a, output: store.__setitem__("final", output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sweep(
    model: VisionModel,
    pixels: Tensor,
    targets: Tensor,
    donors: Tensor,
    readers: Readers,
    *,
    layers: Sequence[int],
    labels: Tensor | None = None,
    group: str = "cls",
) -> dict[str, Tensor]:
    """The same columns as `clsinterp.fork.fork`, from one hooked forward per layer and no nnsight."""
    module, family = model._module, model.family
    blocks = module.get_submodule(family.blocks)
    where = model.layout.index(group)
    labels = targets if labels is None else labels
    out: dict[str, Tensor] = {}

    @torch.no_grad()
    def run(layer: int | None) -> tuple[dict, Tensor, Tensor]:
        store: dict = {}
        captured: dict[int, Tensor] = {}
        hooks = [
            head.register_forward_pre_hook(lambda _m, args, i=i: captured.__setitem__(i, args[0]))
            for i, head in enumerate(model.heads)
        ]
        final = module.get_submodule(family.ln_final) if family.ln_final else None
        # The replacing hook comes first, so the recording one sees what the next block gets.
        replacing = nullcontext() if layer is None else _replacing(blocks, layer, where, lambda tokens: tokens[donors])
        with replacing, _recording(blocks, final, store):
            result = module(pixels)
        for hook in hooks:
            hook.remove()
        if captured:
            features = torch.cat([captured[i] for i in sorted(captured)], dim=-1)
        else:
            tokens = store["final"]
            features = torch.cat([tokens[:, 0], tokens[:, model.layout.n_prefix :].mean(1)], dim=-1)
        return store, features, result.logits if readers.head.own else readers.head(features)

    def cls_only(features: Tensor) -> Tensor:
        d = model.d_model
        if readers.cls_head is not None:
            return readers.cls_head(features[:, :d])
        if readers.head.own and family.averages_heads:
            return model.heads[0](features[:, :d])
        if readers.head.own:
            return model.heads[0](torch.cat([features[:, :d], torch.zeros_like(features[:, d:])], dim=-1))
        return readers.head.only("cls", features)

    for layer in [None, *layers]:
        store, features, logits = run(layer)
        name = (lambda curve, layer=layer: f"rank_intact{curve}") if layer is None else (
            lambda curve, layer=layer: column(f"shuffle{curve}", layer)
        )
        out[name("")] = ranks(logits, targets)
        if layer is not None:
            out[column("donor", layer)] = ranks(logits, targets[donors])
        if family.other_readouts:
            out[name("_cls_only")] = ranks(cls_only(features), targets)
        for j in layers:
            if layer is None:
                for g in ("cls", "distill"):
                    if g not in model.layout.slices or (g == "distill" and "distill" not in family.readouts):
                        continue
                    tokens = store[j][:, model.layout.index(g)]
                    if readers.final_norm and model.lens_norm is not None:
                        with torch.no_grad():
                            tokens = model.lens_norm(tokens)
                    readout = g if g in family.readouts else family.readouts[0]
                    out[column("lens" if g == "cls" else f"lens_{g}", j)] = ranks(readers.head.read(tokens, readout), targets)
            if readers.probes is not None and j in readers.probed and (layer is None or layer <= j):
                i = readers.probed.index(j)
                scores = store[j][:, 0].double() @ readers.probes.weight[i].T + readers.probes.bias[i]
                out[column("probe", j) if layer is None else column("restoration", layer, j)] = ranks(scores, labels)
    return out
