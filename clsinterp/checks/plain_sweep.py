"""The slow twin of the fork: plain torch, one forward hook, one forward per layer. Used by `check`, tests and the bench."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from clsinterp.interventions import TokenEdit
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.models.outputs import hidden_of, logits_of
from clsinterp.models.tokens import Where
from clsinterp.probing.metrics import ranks
from clsinterp.sweeps.columns import column
from clsinterp.sweeps.readers import Readers
from clsinterp.vision_model import VisionModel


@torch.no_grad()
def plain_forward(
    model: VisionModel,
    pixels: Tensor,
    layer: int | None = None,
    where: Where = 0,
    replace: Callable[[Tensor], Tensor] | None = None,
) -> tuple[dict[int, Tensor], Tensor, Any]:
    """One forward of the Hugging Face module with plain hooks, the tokens at `where` after `layer` replaced.

    Returns:
        The residual stream after each block (-1: before block 0) as the next block sees it; the read-out features
        (batch, d_readout); the model's logits (None without a classifier).
    """
    module, family = model._module, model.family
    blocks = module.get_submodule(family.blocks)
    states: dict[int, Tensor] = {}
    features: dict[int, Tensor] = {}

    def change(h: Tensor) -> Tensor:
        assert replace is not None  # asked only where a layer is
        h = h.clone()
        h[:, where] = replace(h[:, where].clone())
        return h

    with ExitStack() as hooks:

        def add(handle) -> None:
            hooks.callback(handle.remove)

        # The replacing hook comes first, so the recording ones see what the next block gets.
        if layer == EMBEDDINGS:
            add(blocks[0].register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:])))
        elif layer is not None:
            add(blocks[layer].register_forward_hook(lambda _m, _a, output: change(output)))
        add(blocks[0].register_forward_pre_hook(lambda _m, args: states.__setitem__(EMBEDDINGS, args[0])))
        for i, block in enumerate(blocks):
            add(block.register_forward_hook(lambda _m, _a, output, i=i: states.__setitem__(i, output)))
        # open_clip without a classifier still projects what one would read.
        reading = model.heads or ([module.get_submodule("head")] if family.library == "open_clip" else [])
        for i, head in enumerate(reading):
            add(head.register_forward_pre_hook(lambda _m, args, i=i: features.__setitem__(i, args[0])))
        output = module(pixels)
    if features:
        readout = torch.cat([features[i] for i in sorted(features)], dim=-1)
    else:
        readout = _readout(model, output)
    return states, readout, logits_of(output) if family.heads else None


def _readout(model: VisionModel, output: Any) -> Tensor:
    """The read-outs of a model without a classifier, side by side, from what its forward gives."""
    family, layout = model.family, model.layout
    if isinstance(output, Tensor) and output.ndim == 2:  # timm without a classifier gives what one would read
        return output
    if "map" in family.readouts or (family.lens_norm and not family.ln_final):
        return output.pooler_output
    tokens = hidden_of(output)
    places = {"cls": 0, "distill": 1}
    parts = {
        "patch_mean": lambda: tokens[:, layout.n_prefix :].mean(1),
        "token_mean": lambda: tokens.mean(1),
    }
    return torch.cat([parts[name]() if name in parts else tokens[:, places[name]] for name in family.readouts], dim=-1)


@torch.no_grad()
def sweep(
    model: VisionModel,
    pixels: Tensor,
    targets: Tensor,
    donors: Tensor | TokenEdit,
    readers: Readers,
    *,
    layers: Sequence[int],
    labels: Tensor | None = None,
    group: str | Sequence[int] = "cls",
) -> dict[str, Tensor]:
    """The same columns as `clsinterp.fork`, from one hooked forward per layer and no nnsight."""
    family, d = model.family, model.d_model
    where = model.layout.index(group)
    labels = targets if labels is None else labels
    out: dict[str, Tensor] = {}

    def cls_only(features: Tensor) -> Tensor:
        if readers.cls_head is not None:
            return readers.cls_head(features[:, :d])
        if family.averages_heads:
            return model.heads[0](features[:, :d]) if readers.head.own else readers.head.read(features[:, :d], "cls")
        held = torch.zeros_like(features) if readers.rest is None else readers.rest.to(features).expand_as(features)
        features = torch.cat([features[:, :d], held[:, d:]], dim=-1)
        return model.heads[0](features) if readers.head.own else readers.head(features)

    def change(tokens: Tensor) -> Tensor:
        return donors(tokens) if callable(donors) else tokens[donors]

    for layer in [None, *layers]:
        states, features, logits = plain_forward(model, pixels, layer, where, change)
        logits = logits if readers.head.own else readers.head(features)
        name = column("intact") if layer is None else column("shuffle", layer)
        out[name] = ranks(logits, targets)
        out[name.replace("rank", "answer")] = logits.max(-1).indices
        if layer is not None and not callable(donors):
            out[column("donor", layer)] = ranks(logits, targets[donors])
        if family.other_readouts:
            name = column("intact_cls_only") if layer is None else column("shuffle_cls_only", layer)
            alone = cls_only(features)
            out[name] = ranks(alone, targets)
            out[name.replace("rank", "answer")] = alone.max(-1).indices
        for probed in layers:
            if readers.probes is None or probed not in readers.probed or (layer is not None and layer > probed):
                continue
            i = readers.probed.index(probed)
            scores = states[probed][:, 0].double() @ readers.probes.weight[i].T + readers.probes.bias[i]
            name = column("probe", probed) if layer is None else column("restoration", layer, probed)
            out[name] = ranks(scores, labels)
        if layer is None:
            out |= _lens(model, states, targets, readers, layers)
    return out


def _lens(
    model: VisionModel, states: dict[int, Tensor], targets: Tensor, readers: Readers, layers: Sequence[int]
) -> dict[str, Tensor]:
    out = {}
    readouts = model.family.readouts
    for layer in layers:
        for group in ("cls", "distill"):
            if group not in model.layout.slices or (group == "distill" and "distill" not in readouts):
                continue
            tokens = states[layer][:, model.layout.index(group)]
            if readers.final_norm and model.lens_norm is not None:
                tokens = model.lens_norm(tokens)
            logits = readers.head.read(tokens, group if group in readouts else readouts[0])
            out[column("lens" if group == "cls" else f"lens_{group}", layer)] = ranks(logits, targets)
    return out
