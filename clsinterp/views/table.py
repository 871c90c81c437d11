"""The numbers of lens views as tidy tables."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from clsinterp.views.reading import Reading


def lens_table(view: Reading) -> pa.Table:
    """One row per layer, token and class: ``model, family, view, layer, token, group, row, column, read_by, class_index,
    class, logit, probability, rank``.

    ``read_by`` is the read-out whose part of the classifier the lens applies to the token: ``patch_mean`` on a CLS token says
    that the head reads patches. ``view`` is ``intact`` or ``intervened``; ``row`` and ``column`` are those of a patch on the
    grid, else null.
    """
    layers, tokens, classes = view.logits.shape
    readers = view.read_by
    layer, token, class_index = (
        x.flatten() for x in torch.meshgrid(*(torch.arange(n) for n in (layers, tokens, classes)), indexing="ij")
    )
    return pa.table(
        _head(view, layer, token)
        | {
            "read_by": _named([readers[group] for group in view.groups], token),
            "class_index": pa.array(class_index.numpy(), pa.int32()),
            "class": _named(view.class_names, class_index),
            "logit": pa.array(view.logits.flatten().numpy()),
            "probability": pa.array(view.probabilities.flatten().numpy()),
            "rank": pa.array(all_ranks(view).flatten().numpy(), pa.int32()),
        }
    )


def attention_table(view: Reading) -> pa.Table:
    """One row per layer, head and token: how much the CLS token attends to it (softmax weight)."""
    assert view.attention is not None  # its callers offer attention only where there is some
    layers, heads, tokens = view.attention.shape
    layer, head, token = (
        x.flatten() for x in torch.meshgrid(*(torch.arange(n) for n in (layers, heads, tokens)), indexing="ij")
    )
    return pa.table(
        _head(view, layer, token)
        | {
            "head": pa.array(head.numpy(), pa.int32()),
            "attention": pa.array(view.attention.flatten().numpy()),
        }
    )


def similarity_table(view: Reading) -> pa.Table:
    """One row per layer and token: its cosine similarity to the CLS token."""
    assert view.similarity is not None  # as above
    layers, tokens = view.similarity.shape
    layer, token = (x.flatten() for x in torch.meshgrid(torch.arange(layers), torch.arange(tokens), indexing="ij"))
    return pa.table(_head(view, layer, token) | {"similarity": pa.array(view.similarity.flatten().numpy())})


def all_ranks(view: Reading) -> torch.Tensor:
    """0-based ranks of every class, (layer, token, classes); ties go to the lower index, as in `clsinterp.probing.metrics`."""
    order = view.logits.sort(dim=-1, descending=True, stable=True).indices
    return order.argsort(dim=-1)


def _head(view: Reading, layer: torch.Tensor, token: torch.Tensor) -> dict[str, pa.Array]:
    n = len(layer)
    columns = view.grid[1]
    place = (token - view.n_prefix).numpy()
    prefix = place < 0
    return {
        "model": pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int8()), [view.model]),
        "family": pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int8()), [view.family]),
        "view": pa.DictionaryArray.from_arrays(
            pa.array([0] * n, pa.int8()), ["intact" if view.intervention is None else "intervened"]
        ),
        "layer": pa.array(layer.numpy(), pa.int32()),
        "token": _named(view.tokens, token),
        "group": _named(view.groups, token),
        "row": pa.array(place // columns, pa.int32(), mask=prefix),
        "column": pa.array(place % columns, pa.int32(), mask=prefix),
    }


def _named(names: Sequence[str], index: torch.Tensor) -> pa.Array:
    """The names at `index`, each kept once: pandas takes no dictionary in which one stands twice."""
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    codes = torch.tensor([place[name] for name in names], dtype=torch.int32)[index]
    return pa.DictionaryArray.from_arrays(pa.array(codes.numpy()), list(place))
