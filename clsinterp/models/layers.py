"""Which layers there are, and what is said of one that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from clsinterp.errors import RequestError, RunError

EMBEDDINGS = -1  # the layer before block 0


def not_finite(layer: int | None) -> RunError:
    """The error for NaN or infinity that first stands after `layer`, or only in the logits (None)."""
    where = "the logits" if layer is None else f"the residual stream, first after layer {layer}"
    return RunError(
        f"NaN or infinity in {where}. Look at the checkpoint's weights, or run with dtype='float32' if another was given."
    )


def check_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """`layers` sorted, without repeats.

    Raises:
        RequestError: one is outside -1 .. n_layers - 1.
    """
    for layer in layers:
        if not EMBEDDINGS <= layer < n_layers:
            raise RequestError(
                f"layer {layer} was given; this model has layers 0 to {n_layers - 1}, and -1 for the embeddings."
            )
    return tuple(sorted(set(layers)))
