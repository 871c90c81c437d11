"""Knock-outs of the CLS token's attention: what it may read, and who may read it, block by block.

For each layer l, in the blocks named, with minus infinity as the score of what may not be read:

- ``knock_until``, blocks 0 to l: the CLS token reads nothing but itself. It is "born late": all that the output has of the image
  through the CLS token was read after l.
- ``knock_from``, blocks l to the last: it reads nothing any more, and stays what it was.
- ``knock_at``, the `WINDOW` blocks from l on.
- ``knock_patches_until``, blocks 0 to l: patches can't read the CLS token.

DeiT's distillation token goes the same way as the CLS token, and neither reads the other. Where there are registers, which
might hand on what they have read, the first three stand for a CLS token that does not read them either; under the names with
``_registers`` it still does.

A knock-out takes a place to attend to away, too (`clsinterp.sweeps.cuts`). Two controls (`keeps_sinks`) leave it there, with the
keys and values of what was hidden at their mean over the images of the batch, block by block as they are under the edit itself:

- ``mean_kv_until``, blocks 0 to l: the CLS token reads the other tokens of the mean image.
- ``mean_kv_patches_until``, blocks 0 to l: patches read the mean CLS token.

They say as little of the image as a knock-out does (but for a share of one over the batch), so what a knock-out costs more is not
information: it is the lost sink, with the constant part of what was read there, and what comes of attention that goes where it
never went. A batch's mean hangs on which images are in it, so the controls are in the study and not in a run, whose numbers do
not depend on how batches are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clsinterp.interventions import mean
from clsinterp.models.layers import check_layers
from clsinterp.sweeps.cuts import Cut, is_not_read, reads_nothing
from clsinterp.sweeps.plan import Edit

if TYPE_CHECKING:
    from clsinterp.models.tokens import TokenLayout
    from clsinterp.vision_model import VisionModel

WINDOW = 3  # blocks


def knock_outs(
    model: VisionModel, layers: Sequence[int] | None = None, window: int = WINDOW
) -> dict[tuple[str, int], Edit]:
    """The knock-outs of `model` by curve and layer, for `clsinterp.sweeps.variants.variants`.

    Args:
        model: the model.
        layers: the l's; default all. -1 has no block and is passed over, as is a window that does not fit.
        window: blocks of ``knock_at``.

    Raises:
        RequestError: a layer out of range, or a model without a CLS token.
    """
    return knock_outs_of(model.layout, model.n_layers, layers, window)


def knock_outs_of(
    layout: TokenLayout, n_layers: int, layers: Sequence[int] | None = None, window: int = WINDOW
) -> dict[tuple[str, int], Edit]:
    """`knock_outs` of any model with these tokens and as many blocks; they hang on nothing else."""
    n = n_layers
    asked = [layer for layer in check_layers(range(n) if layers is None else layers, n) if layer >= 0]
    alone, unread = reads_nothing(layout), is_not_read(layout)
    edits = _reads(asked, n, window, alone, "")
    edits |= {("knock_patches_until", layer): _cut(unread, 0, layer + 1) for layer in asked}
    if "registers" in layout.slices:
        edits |= _reads(asked, n, window, reads_nothing(layout, keep=["registers"]), "_registers")
    return edits


def keeps_sinks(model: VisionModel, layers: Sequence[int] | None = None) -> dict[tuple[str, int], Edit]:
    """The controls of ``knock_until`` and ``knock_patches_until``, by curve and layer; arguments and errors as `knock_outs`."""
    n = model.n_layers
    asked = [layer for layer in check_layers(range(n) if layers is None else layers, n) if layer >= 0]
    cuts = {
        "mean_kv_until": reads_nothing(model.layout, instead=mean),
        "mean_kv_patches_until": is_not_read(model.layout, instead=mean),
    }
    return {(curve, layer): _cut(cut, 0, layer + 1) for curve, cut in cuts.items() for layer in asked}


def _reads(layers: Sequence[int], n: int, window: int, cut: Cut, suffix: str) -> dict[tuple[str, int], Edit]:
    """The three curves of a token that does not read, in an order in which neighbours share rows."""
    until = {(f"knock_until{suffix}", layer): _cut(cut, 0, layer + 1) for layer in layers}
    since = {(f"knock_from{suffix}", layer): _cut(cut, layer, n) for layer in layers}
    at = {(f"knock_at{suffix}", x): _cut(cut, x, x + window) for x in layers if x + window <= n}
    return until | since | at


def _cut(cut: Cut, start: int, stop: int) -> Edit:
    return Edit(cuts=dict.fromkeys(range(start, stop), cut))
