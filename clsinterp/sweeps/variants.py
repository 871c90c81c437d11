"""Many edits of the residual stream in one forward.

Every edit gets a copy of the batch. The copy leaves the intact rows at the first layer it edits and rides through the
remaining blocks beside them, so blocks before that layer run once for all. The fork is the special case of one swap per
copy; here a copy may be edited at several layers, at any tokens, and may leave before the last block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.vision_model import VisionModel

MOST = 16  # copies that ride at once: beyond, allocating the large tensors costs more than a shared start saves
INTACT = 0  # the number of the untouched copy; edit k of the list is copy k + 1


@dataclass(frozen=True)
class Edit:
    """What happens to the residual stream of one copy of the batch.

    Attributes:
        at: layer (-1: before block 0) -> function of the copy's residual stream there, which may edit in place.
        until: the layer after which the copy leaves; None: it rides to the read-out.
    """

    at: Mapping[int, TokenEdit]
    until: int | None = None


@dataclass(frozen=True)
class Variants:
    """What came out.

    Attributes:
        readout: copy -> what enters the classifier, (batch, d_readout).
        tokens: layer -> copy -> tokens of the watched group there, edits of that layer included.
    """

    readout: dict[int, Float[Tensor, "batch d_readout"]]
    tokens: dict[int, dict[int, Tensor]]


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

    Raises:
        RequestError: a layer out of range, no such tokens, an edit without a layer, gradients asked of a server, or more
            images than fit into one request to it (an edit may mix the images of a batch, so it is not divided).
    """
    layers = check_layers(list(watched), model.n_layers)
    for edit in edits:
        if not edit.at:
            raise RequestError("an edit without a layer was given; name at least one.")
        check_layers(list(edit.at), model.n_layers)
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
    rows = images_at_once(model, pixels.shape[-2], pixels.shape[-1], 0, memory_gb)
    at_once = max(1, min(MOST, rows // len(pixels) - 1))
    n = len(pixels)  # not in the body: what a body names travels with a remote trace, and the pixels do already
    readout: dict[int, Tensor] = {}
    tokens: dict[int, dict[int, Tensor]] = {layer: {} for layer in layers}
    for start in range(0, max(1, len(edits)), at_once):
        group = {k + 1: edits[k] for k in range(start, min(start + at_once, len(edits)))}
        with torch.set_grad_enabled(grad), model.trace(pixels):
            with torch.set_grad_enabled(grad):
                found, seen = _ride(model, n, group, where, layers, grad)
            nnsight.save(found)
            nnsight.save(seen)
        readout |= found
        for layer in layers:
            tokens[layer] |= seen[layer]
    return Variants(readout, tokens)


def _ride(
    model: VisionModel, n: int, edits: Mapping[int, Edit], where: Where, watched: Sequence[int],
    grad: bool,
) -> tuple[dict[int, Tensor], dict[int, dict[int, Tensor]]]:  # fmt: skip
    """The body of the trace."""
    aboard = [INTACT]
    seen: dict[int, dict[int, Tensor]] = {layer: {} for layer in watched}

    def pass_by(layer: int, h: Tensor) -> Tensor | None:
        """Edit, watch and unload the copies at `layer`; the new rows, or None if they are as they were."""
        copies = dict(zip(aboard, h.split(n), strict=True))
        if grad:  # nothing flows from one copy into another, nor into the blocks before it
            copies[INTACT] = copies[INTACT].detach()
        for k, edit in edits.items():
            if layer in edit.at:
                copies[k] = edit.at[layer](copies.get(k, copies[INTACT]).clone())
        if layer in seen:
            seen[layer] = {k: copy[:, where].clone() for k, copy in copies.items()}
        stay = [k for k in copies if k == INTACT or not _leaves(edits[k], layer)]
        touched = len(stay) != len(aboard) or grad or any(layer in edit.at for edit in edits.values())
        aboard[:] = stay
        return torch.cat([copies[k] for k in stay]) if touched else None

    new = pass_by(EMBEDDINGS, model.blocks[0].input)
    if new is not None:
        model.blocks[0].input = new
    for layer in range(model.n_layers):
        run_block(model, layer, partial(pass_by, layer))
    return dict(zip(aboard, model.readout.clone().split(n), strict=True)), seen


def _leaves(edit: Edit, layer: int) -> bool:
    return edit.until is not None and edit.until <= layer
