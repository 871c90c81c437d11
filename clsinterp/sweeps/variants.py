"""Many edits of the residual stream, and of what attention may read, in one forward.

Every edit gets a copy of the batch. The copy leaves the intact rows at the first layer where it does anything and rides through
the remaining blocks beside them, so blocks before that layer run once for all; and copies that have done the same so far ride
as one (`clsinterp.sweeps.plan`). The fork is the special case of one swap per copy; here a copy may be edited at several layers,
at any tokens, and may leave before the last block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.interventions import TokenEdit
from clsinterp.models.layers import EMBEDDINGS, check_layers
from clsinterp.models.tokens import Where
from clsinterp.sweeps.batching import images_at_once, run_block
from clsinterp.sweeps.cuts import cut_block
from clsinterp.sweeps.plan import INTACT, Edit, plain_plan, rides

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.sweeps.plan import PlainStop
    from clsinterp.vision_model import VisionModel

MOST = 16  # copies that ride at once: beyond, allocating the large tensors costs more than a shared start saves
Reader = Callable[..., dict[str, Tensor]]  # (model, features of all rows) -> values of all rows, inside the trace

__all__ = ["INTACT", "MOST", "Edit", "Variants", "on", "variants"]


@dataclass(frozen=True)
class Variants:
    """What came out.

    Attributes:
        readout: copy -> what enters the classifier, (batch, d_readout); empty where a reader took its place.
        tokens: layer -> copy -> tokens of the watched group there, edits of that layer included.
        read: copy -> what the reader made of its read-out.
    """

    readout: dict[int, Float[Tensor, "batch d_readout"]]
    tokens: dict[int, dict[int, Tensor]]
    read: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def on(where: Where, change: TokenEdit) -> TokenEdit:
    """The change that applies `change` to the tokens at `where` (as `TokenLayout.index` gives it) and to no others."""

    def apply(h: Tensor) -> Tensor:
        h[:, where] = change(h[:, where].clone())
        return h

    return apply


def variants(
    model: VisionModel,
    pixels: Float[Tensor, "batch channel height width"],
    edits: Sequence[Edit],
    *,
    watch: str | Sequence[int] = "cls",
    watched: Iterable[int] = (),
    grad: bool = False,
    memory_gb: float | None = None,
    reader: Reader | None = None,
    at_once: int | None = None,
) -> Variants:
    """Run the batch intact and under every edit, in as few forwards as the memory budget allows.

    Args:
        model: the model.
        pixels: the batch.
        edits: one copy of the batch each.
        watch: the token group, or token indices, whose values are returned.
        watched: layers at which they are returned; none by default.
        grad: keep gradients of the edited copies (the intact rows never have any); not on a server.
        memory_gb: budget for activations; default half of what is free. Changes speed, not results.
        reader: reads the output inside the trace, so that only what it gives comes down from a server.
        at_once: copies that ride at once, whatever memory is free; default by the budget, at most `MOST`.

    Raises:
        RequestError: a layer out of range, no such tokens, an edit that does nothing, gradients asked of a server, or more
            images than fit into one request to it (an edit may mix the images of a batch, so it is not divided).
    """
    layers = check_layers(list(watched), model.n_layers)
    for edit in edits:
        if not (edit.at or edit.cuts):
            raise RequestError("an edit without a layer was given; name at least one.")
        check_layers([*edit.at, *edit.cuts], model.n_layers)
        if EMBEDDINGS in edit.cuts:
            raise RequestError("a cut before block 0 was given; cuts are named by their block, from 0.")
    if grad and model.server is not None:
        raise RequestError(
            "grad=True keeps gradients here, and the weights are on a server; load the model without remote=."
        )
    if model.per_request is not None and len(pixels) > model.per_request:
        raise RequestError(
            f"{len(pixels)} images were given; at most {model.per_request} go into one request to a server, and edits "
            "may mix the images of a batch. Give smaller batches, or a larger Server(per_request=)."
        )
    where = model.layout.index(watch) if layers else 0
    if at_once is None:
        rows = images_at_once(model, pixels.shape[-2], pixels.shape[-1], 0, memory_gb)
        at_once = max(1, min(MOST, rows // len(pixels) - 1))
    n = len(pixels)  # not in the body: what a body names travels with a remote trace, and the pixels do already
    out = Variants({}, {layer: {} for layer in layers})
    for group in rides(edits, model.n_layers, at_once):
        stops = plain_plan(group, model.n_layers)
        with torch.set_grad_enabled(grad), model.trace(pixels):
            with torch.set_grad_enabled(grad):
                found, seen, read = _ride(model, n, stops, where, layers, grad, reader)
            nnsight.save(found)
            nnsight.save(seen)
            nnsight.save(read)
        out.readout.update(found)
        out.read.update(read)
        for layer in layers:
            out.tokens[layer].update(seen[layer])
    return out


def _ride(
    model: VisionModel, n: int, stops: Mapping[int, PlainStop], where: Where, watched: Sequence[int],
    grad: bool, reader: Reader | None,
) -> tuple[dict[int, Tensor], dict[int, dict[int, Tensor]], dict[int, dict[str, Tensor]]]:  # fmt: skip
    """The body of the trace."""
    seen: dict[int, dict[int, Tensor]] = {layer: {} for layer in watched}

    def pass_by(layer: int, h: Tensor) -> Tensor | None:
        """Edit, watch, unload and divide the copies at `layer`; the new rows, or None if they are as they were."""
        edits, riding, touched = stops[layer]
        rows = list(h.split(n))
        if grad:  # nothing flows from one copy into another, nor into the blocks before it
            rows[0] = rows[0].detach()
        edited = [step(rows[source].clone()) if step else rows[source] for source, _, step in edits]
        if layer in seen:
            for (_, members, _), copy in zip(edits, edited, strict=True):
                left = [k for k in members if k == INTACT or INTACT not in members]
                seen[layer] |= {k: copy[:, where].clone() for k in left}
        return torch.cat([edited[source] for source, _, _ in riding]) if touched or grad else None

    new = pass_by(EMBEDDINGS, model.blocks[0].input)
    if new is not None:
        model.blocks[0].input = new
    last = model.n_layers - 1
    edited_last = any(step for _, _, step in stops[last][0])  # by functions that may look at any token
    alone = model.reads_prefix and not edited_last and (last not in seen or model.layout.in_prefix(where))
    for layer in range(model.n_layers):
        cuts = [(slice(i * n, (i + 1) * n), hidden) for i, (_, _, hidden) in enumerate(stops[layer - 1][1]) if hidden]
        if cuts:
            cut_block(model, layer, cuts)
        run_block(model, layer, partial(pass_by, layer), whole=bool(cuts), prefix_only=alone and layer == last)
    branches = stops[last][1]
    aboard = [[k for k in members if k == INTACT or INTACT not in members] for _, members, _ in branches]
    features = model.readout
    if reader is not None:
        values = reader(model, features)
        parts = {name: value.split(n) for name, value in values.items()}
        read = {k: {name: part[i].clone() for name, part in parts.items()} for i, ks in enumerate(aboard) for k in ks}
        return {}, seen, read
    rows = features.clone().split(n)
    return {k: rows[i] for i, ks in enumerate(aboard) for k in ks}, seen, {}
