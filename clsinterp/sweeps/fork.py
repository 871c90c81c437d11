"""The fork: one trace yields every curve.

After each asked block the trace appends to the batch a copy of the intact rows with replaced tokens. Every copy rides
through the remaining blocks in the same forward, so a sweep over L layers costs L (L + 1) / 2 block-passes instead of
L forwards per curve. Where the classifier reads tokens before the patches alone, the last block is run for those
(`clsinterp.models.prefix_block`): 12 layers are 78 block-passes, or 68. Read-outs, lenses and probes of every row are taken
on the way, and only ranks leave the trace. It is exact: each row goes through the same operations as in a forward of its
own, up to how kernels round for fewer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.interventions import TokenEdit, swap
from clsinterp.models.layers import EMBEDDINGS, check_layers, not_finite
from clsinterp.models.tokens import Where
from clsinterp.probing.head import Head
from clsinterp.probing.lens import lens_logits, lens_readout
from clsinterp.probing.metrics import ranks
from clsinterp.sweeps.batching import run_block
from clsinterp.sweeps.captured import read_stream
from clsinterp.sweeps.columns import column
from clsinterp.sweeps.readers import Readers

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from clsinterp.vision_model import VisionModel


def fork(
    model: VisionModel,
    pixels: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    replace: TokenEdit | Int[Tensor, " batch"],
    readers: Readers,
    *,
    layers: Sequence[int],
    labels: Int[Tensor, " batch"] | None = None,
    group: str | Sequence[int] = "cls",
    micro_batch: int | None = None,
) -> dict[str, Int[Tensor, " batch"]]:
    """Ranks of the true label for every curve, from one trace of a batch.

    Args:
        model: the model.
        pixels: the batch.
        targets: each image's class in the classifier's space.
        replace: what happens to the tokens: donor indices, or a function of the batch's tokens.
        readers: classifier, probes, lens.
        layers: where tokens are replaced; -1 is before block 0.
        labels: each image's class in the probes' space; default `targets`.
        group: which tokens are replaced: a group's name, or token indices.
        micro_batch: at most this many images ride at once. Their replacement tokens then come from a first intact pass
            over the whole batch, so the result is the same; it costs one more pass of the batch.

    Returns:
        Columns named as in ``images.parquet``: ``rank_intact``, ``rank_shuffle_LL``, ``rank_donor_LL`` (rank of the
        donor's label in the shuffled output; only for donor indices), ``rank_intact_cls_only``,
        ``rank_shuffle_cls_only_LL`` (families with a CLS read-out and another), ``rank_lens_LL``,
        ``rank_lens_distill_LL``, ``rank_probe_LL``, ``rank_restoration_LL_JJ``.

    Raises:
        RequestError: layer out of range, or no such tokens.
        RunError: NaN or infinity in the residual stream; the message names the layer.
    """
    layers = check_layers(layers, model.n_layers)
    where = model.layout.index(group)
    donors = replace if isinstance(replace, Tensor) else None
    change = swap(replace) if isinstance(replace, Tensor) else replace
    labels = targets if labels is None else labels
    if lost := set(readers.probed) - set(layers):
        raise RequestError(
            f"probes of layers {sorted(lost)} were given, which are not among the layers {list(layers)}."
        )
    n = len(pixels)
    if micro_batch is None or micro_batch >= n:
        rows = _Rows.of(targets, labels, donors, slice(None))
        return _trace(model, pixels, layers, where, lambda layer, tokens: change(tokens), readers, rows)
    new_tokens = {
        layer: change(tokens) for layer, tokens in _intact_tokens(model, pixels, layers, where, micro_batch).items()
    }
    done = []
    for start in range(0, n, micro_batch):
        part = slice(start, min(start + micro_batch, n))
        rows = _Rows.of(targets, labels, donors, part)
        here = {layer: tokens[part].clone() for layer, tokens in new_tokens.items()}
        done.append(_trace(model, pixels[part], layers, where, partial(_given, here), readers, rows))
    return {name: torch.cat([d[name] for d in done]) for name in done[0]}


def _given(tokens: dict[int, Tensor], layer: int, own: Tensor) -> Tensor:
    return tokens[layer]


@dataclass(frozen=True)
class _Rows:
    """What is known of the images in a trace: classes for the classifier, for the probes, and of the donors."""

    targets: Tensor
    labels: Tensor
    donor_targets: Tensor | None

    @classmethod
    def of(cls, targets: Tensor, labels: Tensor, donors: Tensor | None, part: slice) -> _Rows:
        """Those of the images in `part`. Copies: a slice that travels to a server takes the whole tensor with it."""
        donor = None if donors is None else targets[donors][part].clone()
        return cls(targets[part].clone(), labels[part].clone(), donor)

    def to(self, device: torch.device) -> _Rows:
        donor = None if self.donor_targets is None else self.donor_targets.to(device)
        return _Rows(self.targets.to(device), self.labels.to(device), donor)


def _intact_tokens(
    model: VisionModel, pixels: Tensor, layers: Sequence[int], where: Where, size: int
) -> dict[int, Tensor]:
    """The tokens at `where` after each of `layers`, of the whole batch, `size` images at a time."""
    parts = []
    for chunk in pixels.split(size):
        with torch.no_grad(), model.trace(chunk):
            with torch.no_grad():
                found = read_stream(model, layers, lambda h: h[:, where].clone())
            nnsight.save(found)
        parts.append(found)
    return {layer: torch.cat([p[layer] for p in parts]) for layer in parts[0]}


def _trace(
    model: VisionModel,
    pixels: Tensor,
    layers: Sequence[int],
    where: Where,
    new_tokens: Callable[[int, Tensor], Tensor],
    readers: Readers,
    rows: _Rows,
) -> dict[str, Tensor]:
    """One trace: grow the batch at each of `layers`, read everything."""
    n = len(pixels)  # not in the body: what a body names travels with a remote trace, and the pixels do already
    away = model.server is not None and readers.tokens_are_smaller(layers, n)
    asked = changed(readers, probes=None) if away else readers
    # Not inference_mode: BEiT caches its index of relative positions, and an index made there breaks gradients later.
    with torch.no_grad(), model.trace(pixels):
        with torch.no_grad():
            names, table, finite, tokens = _sweep(model, n, layers, where, new_tokens, asked, rows)
        nnsight.save(names)
        nnsight.save(table)
        nnsight.save(finite)
        nnsight.save(tokens)
    bad = [layer for layer, ok in finite.items() if not bool(ok)]
    if bad:
        raise not_finite(bad[0] if bad[0] < model.n_layers else None)
    result = dict(zip(names, table.long().cpu(), strict=True))
    if away:
        result |= {
            name: rank.long().cpu() for name, rank in readers.probe_ranks(tokens, layers, n, rows.labels).items()
        }
    return result


def _sweep(
    model: VisionModel,
    n: int,
    layers: Sequence[int],
    where: Where,
    new_tokens: Callable[[int, Tensor], Tensor],
    readers: Readers,
    rows: _Rows,
) -> tuple[list[str], Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """The body of the trace.

    Returns:
        Names of the rank columns; the columns (column, n); per layer, whether the intact rows are finite; and, where layers
        are probed without probes, the CLS tokens (copies * n, d_model) by layer.
    """
    family = model.family
    prefix = [g for g in ("cls", "distill") if g in model.layout.slices]
    seen: dict[str, dict[int, Tensor]] = {g: {} for g in prefix}  # group -> layer -> tokens of all rows so far
    finite: dict[int, Tensor] = {}

    def grow(layer: int, h: Tensor) -> Tensor:
        copy = h[:n].clone()
        copy[:, where] = new_tokens(layer, copy[:, where].clone())
        return torch.cat([h, copy])  # (copies * n, token, d_model)

    def see(layer: int, h: Tensor) -> None:
        if layer in layers:
            for g in prefix:
                seen[g][layer] = h[:, model.layout.index(g)].clone()

    if EMBEDDINGS in layers:
        h = grow(EMBEDDINGS, model.blocks[0].input)
        model.blocks[0].input = h
        see(EMBEDDINGS, h)

    def after(layer: int, h: Tensor) -> Tensor | None:
        grown = grow(layer, h) if layer in layers else None
        # A sum is finite only if every term is: cheaper than looking at each. Copies too, or their NaN would be ranked.
        finite[layer] = torch.isfinite((h if grown is None else grown).sum(dtype=torch.float32))
        see(layer, h if grown is None else grown)
        return grown

    last = model.n_layers - 1
    alone = model.reads_prefix and (last not in layers or model.layout.in_prefix(where))
    for layer in range(model.n_layers):
        run_block(model, layer, partial(after, layer), prefix_only=layer == last and alone)
    features = model.readout
    rows, readers = rows.to(features.device), readers.to(features.device)
    # The model's own head is looked up here: on a server it has weights, and where the trace was written it may have none.
    head = Head.of(family, model.heads) if readers.head.own else readers.head
    logits = model.logits if head.own else head(features)
    finite[model.n_layers] = torch.isfinite(logits.sum(dtype=torch.float32))
    out: dict[str, Tensor] = {}

    def outputs(curve: str, logits: Tensor) -> None:
        by_copy = logits.unflatten(0, (-1, n))  # (copy, n, class)
        answers, rank = by_copy.argmax(-1), ranks(by_copy, rows.targets.expand(by_copy.shape[:2]))
        out[column(f"intact{curve}")] = rank[0]
        out[column(f"intact{curve}", kind="answer")] = answers[0]
        by_donor = None
        if rows.donor_targets is not None and not curve:
            by_donor = ranks(by_copy[1:], rows.donor_targets.expand(len(layers), n))
        for copy, layer in enumerate(layers):
            out[column(f"shuffle{curve}", layer)] = rank[copy + 1]
            out[column(f"shuffle{curve}", layer, kind="answer")] = answers[copy + 1]
            if by_donor is not None:
                out[column("donor", layer)] = by_donor[copy]

    outputs("", logits)
    if family.other_readouts:
        if readers.cls_head is not None:
            outputs(
                "_cls_only",
                readers.cls_head(features.chunk(len(family.readouts), dim=-1)[family.readouts.index("cls")]),
            )
        else:
            outputs("_cls_only", head.only("cls", features, readers.rest))
    norm = model.lens_norm if readers.final_norm else None
    for g in prefix:
        if g != "cls" and g not in family.readouts:
            continue
        readout = lens_readout(family, g)
        for layer, tokens in seen[g].items():
            name = column("lens" if g == "cls" else f"lens_{g}", layer)
            out[name] = ranks(lens_logits(tokens[:n], head, readout, norm), rows.targets)
    read = {layer: seen["cls"][layer] for layer in readers.probed} if "cls" in seen else {}
    if readers.probes is not None:
        out |= readers.probe_ranks(read, layers, n, rows.labels)
        read = {}
    # One tensor: one transfer brings it down from a GPU, and views of the copies' ranks would travel whole.
    return list(out), torch.stack([rank.int().to(features.device) for rank in out.values()]), finite, read
