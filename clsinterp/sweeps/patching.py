"""Activation patching: put activations of a clean run into a corrupted one, place by place, and see what the output does.

Every place of a layer rides as a copy of the batch in one forward, grown at the layer's input, so blocks before it run
once. `attribution_patch` is the first-order estimate of the same sweep from one backward pass (Nanda 2023).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.probing.metrics import mean_interval
from clsinterp.sweeps.batching import images_at_once
from clsinterp.sweeps.patched import patched

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel

Metric = Callable[[Float[Tensor, "batch classes"]], Float[Tensor, " batch"]]
STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
HEADS = ("q", "k", "v", "z", "result", "pattern", "attn_scores")
TABLE = pa.schema(
    [
        ("what", pa.string()),
        ("layer", pa.int16()),
        ("token", pa.int32()),
        ("head", pa.int16()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
    ]
)


Classes = int | Sequence[int] | Int[Tensor, " batch"]


def logit_difference(right: Classes, wrong: Classes) -> Metric:
    """The metric: logit of class `right` minus logit of class `wrong`, image by image.

    Args:
        right, wrong: class numbers: one for all images, or one for each.

    Raises:
        RequestError: something else; called, the metric raises it for another number of images or a class the logits lack.

    Example:
        >>> logit_difference(0, [1, 2])(torch.tensor([[5.0, 1.0, 2.0], [5.0, 1.0, 2.0]]))
        tensor([4., 3.])
    """
    pair = [_classes(given) for given in (right, wrong)]

    def metric(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
        n, n_classes = logits.shape
        rows = torch.arange(n, device=logits.device)
        found = []
        for classes in pair:
            if classes.ndim and len(classes) != n:
                raise RequestError(
                    f"{len(classes)} classes were given for {n} images; one, or one for each, is expected."
                )
            if len(outside := classes[(classes < 0) | (classes >= n_classes)].flatten()):
                raise RequestError(f"class {int(outside[0])} was given; the logits have classes 0 to {n_classes - 1}.")
            found.append(logits[rows, classes.to(logits.device).expand(n)])
        return found[0] - found[1]

    return metric


def _classes(given: Any) -> Tensor:
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"{given!r} was given; class numbers are expected (model.class_names.index(NAME))."
        ) from error
    if found.is_floating_point() or found.dtype == torch.bool or found.ndim > 1:
        raise RequestError(f"{given!r} was given; class numbers are expected, one or one for each image.")
    return found.long()


def recovered(
    metric: Metric, clean: Float[Tensor, "batch classes"], corrupted: Float[Tensor, "batch classes"]
) -> Metric:
    """What an image's `metric` gained over its own corrupted run, in units of what the clean runs gain on average.

    0 is the corrupted run, image by image, and 1 the clean one on average over the batch: where images stand before the
    patch does not widen the interval of what the patch does. The unit, the mean difference of the two runs, is taken as
    known. Only for logits of the same images in the same order.

    Raises:
        RequestError: the metric does not tell the two runs apart.
    """
    start, end = metric(corrupted), metric(clean).mean()
    if torch.isclose(start.mean(), end):
        raise RequestError(
            "the metric has the same mean on the clean and the corrupted run; there is nothing to recover."
        )
    whole = end - start.mean()
    return lambda logits: (metric(logits) - start.to(logits.device)) / whole.to(logits.device)


def patch_resid(
    model: "VisionModel",
    clean: Any,
    corrupted: Any,
    metric: Metric,
    what: str = "resid_pre",
    *,
    layers: Sequence[int] | None = None,
    tokens: Sequence[int] | None = None,
    memory_gb: float | None = None,
) -> pa.Table:
    """Patch one token of the residual stream, or of what a block adds to it, at a time: by layer and token.

    Args:
        model: the model.
        clean: images whose activations are taken.
        corrupted: as many images, in whose run they are put.
        metric: what is measured of the output, image by image.
        what: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out`` or ``mlp_out``.
        layers: default all.
        tokens: default all; prefix tokens come first.
        memory_gb: budget for activations; default half of what is free.

    Returns:
        Columns as in `TABLE`: the mean of the metric over images with its 95% interval; ``head`` is null.
    """
    if what not in STREAM:
        raise RequestError(f"{what!r} was given; one of {', '.join(STREAM)} is expected.")
    return _sweep(model, clean, corrupted, metric, what, layers, tokens, "token", memory_gb)


def patch_mlp(model: "VisionModel", clean: Any, corrupted: Any, metric: Metric, **options: Any) -> pa.Table:
    """`patch_resid` of the MLP outputs."""
    return patch_resid(model, clean, corrupted, metric, "mlp_out", **options)


def patch_attn_head(
    model: "VisionModel",
    clean: Any,
    corrupted: Any,
    metric: Metric,
    what: str = "z",
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    memory_gb: float | None = None,
) -> pa.Table:
    """Patch one attention head at a time, at all tokens: by layer and head.

    Args:
        model: the model.
        clean: images whose activations are taken.
        corrupted: as many images, in whose run they are put.
        metric: what is measured of the output, image by image.
        what: ``q``, ``k``, ``v``, ``z``, ``result``, ``pattern`` or ``attn_scores``.
        layers: default all.
        heads: default all.
        memory_gb: budget for activations; default half of what is free.

    Returns:
        Columns as in `TABLE`; ``token`` is null.
    """
    if what not in HEADS:
        raise RequestError(f"{what!r} was given; one of {', '.join(HEADS)} is expected.")
    return _sweep(model, clean, corrupted, metric, what, layers, heads, "head", memory_gb)


def attribution_patch(
    model: "VisionModel",
    clean: Any,
    corrupted: Any,
    metric: Metric,
    what: str = "resid_pre",
    *,
    layers: Sequence[int] | None = None,
) -> pa.Table:
    """First-order estimate of `patch_resid` or `patch_attn_head` for every place, from one forward and backward pass.

    The value is the metric on the corrupted run plus (clean - corrupted) times the gradient, summed over the place.

    Returns:
        Columns as in `TABLE`.
    """
    names, axis = _names(model, what, layers)
    pixels = _paired(model, clean, corrupted)
    with torch.no_grad():
        _, source = model.run_with_cache(pixels[0], list(names.values()))
    logits, cache = model.run_with_cache(pixels[1], list(names.values()), incl_bwd=lambda logits: metric(logits).sum())
    before = metric(logits.detach())
    rows = []
    for layer, name in names.items():
        product = (source[name] - cache[name]) * cache.grad(name)
        effect = _by_place(product, what, axis)  # (place, batch)
        rows += [_row(what, layer, axis, place, before + one) for place, one in enumerate(effect)]
    return pa.Table.from_pylist(rows, schema=TABLE)


def _by_place(product: Tensor, what: str, axis: str) -> Float[Tensor, "place batch"]:
    if axis == "token":
        return product.sum(-1).T
    if what in ("pattern", "attn_scores"):
        return product.sum((-1, -2)).T
    return product.sum((1, 3)).T  # (batch, token, head, d)


def _names(model: "VisionModel", what: str, layers: Sequence[int] | None) -> tuple[dict[int, str], str]:
    chosen = range(model.n_layers) if layers is None else layers
    for layer in chosen:
        if not 0 <= layer < model.n_layers:
            raise RequestError(f"layer {layer} was given; this model has layers 0 to {model.n_layers - 1}.")
    if what in STREAM:
        return {i: f"blocks.{i}.hook_{what}" for i in chosen}, "token"
    if what in HEADS:
        return {i: f"blocks.{i}.attn.hook_{what}" for i in chosen}, "head"
    raise RequestError(f"{what!r} was given; one of {', '.join(STREAM + HEADS)} is expected.")


def _paired(model: "VisionModel", clean: Any, corrupted: Any) -> tuple[Tensor, Tensor]:
    pixels = model.pixels(clean), model.pixels(corrupted)
    if pixels[0].shape != pixels[1].shape:
        raise RequestError(
            f"clean images of shape {tuple(pixels[0].shape)} and corrupted ones of {tuple(pixels[1].shape)} were given; "
            "patching needs pairs."
        )
    return pixels


def _sweep(
    model: "VisionModel",
    clean: Any,
    corrupted: Any,
    metric: Metric,
    what: str,
    layers: Sequence[int] | None,
    places: Sequence[int] | None,
    axis: str,
    memory_gb: float | None,
) -> pa.Table:
    names, _ = _names(model, what, layers)
    pixels = _paired(model, clean, corrupted)
    with torch.no_grad():
        _, source = model.run_with_cache(pixels[0], list(names.values()))
    n = len(pixels[0])
    height, width = pixels[0].shape[-2:]
    at_once = max(1, images_at_once(model, height, width, 0, memory_gb) // n)
    rows = []
    for layer, name in names.items():
        size = source[name].shape[1] if axis == "token" else model.n_heads
        chosen = list(range(size) if places is None else places)
        if bad := [p for p in chosen if not 0 <= p < size]:
            raise RequestError(f"{axis} {bad[0]} was given; there are {size}.")
        for start in range(0, len(chosen), at_once):
            part = chosen[start : start + at_once]
            logits = patched(model, pixels[1], layer, name, source[name], part, _axis_of(what, axis))
            rows += [_row(what, layer, axis, place, metric(one)) for place, one in zip(part, logits, strict=True)]
    return pa.Table.from_pylist(rows, schema=TABLE)


def _axis_of(what: str, axis: str) -> int:
    """The axis of the place: tokens and the heads of scores come second, other heads third."""
    return 1 if axis == "token" or what in ("pattern", "attn_scores") else 2


def _row(what: str, layer: int, axis: str, place: int, values: Float[Tensor, " batch"]) -> dict[str, Any]:
    low, high = mean_interval(values)
    row = {"what": what, "layer": layer, "token": None, "head": None, "value": float(values.mean()), "n": len(values)}
    return row | {axis: place, "ci_low": low, "ci_high": high}
