"""The trace behind a lens view. Travels to a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import nnsight
import torch
from torch import Tensor

from clsinterp.errors import RunError
from clsinterp.hooks.points import walk
from clsinterp.interventions import TokenEdit
from clsinterp.probing.head import Head
from clsinterp.probing.lens import token_logits

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel


def lens_trace(
    model: VisionModel,
    batch: Tensor,
    names: Sequence[str],
    here: str | None,
    make: TokenEdit,
    reference: Tensor | None,
    head: Head,
    cls_only: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What a view holds of the first image of `batch`.

    Args:
        model: the model.
        batch: the image, then reference images, if any.
        names: the hook names that are visited, in forward order.
        here: the name at which the CLS token is replaced; None leaves it.
        make: from reference tokens (n, d_model) to the replacement (1, d_model).
        reference: what `make` is given; None means the CLS tokens of the reference images at `here`.
        head: the classifier to read with. Of the model's own the weights are looked up where the trace runs.
        cls_only: whether `output` is that of the CLS read-out alone.

    Returns:
        Lens logits (layer, token, class), output logits (class), attention of the CLS token (layer, head, token) or None,
        similarity to the CLS token (layer, token) or None.

    Raises:
        RunError: NaN or infinity in the residual stream.
    """
    given = None if head.own else head
    with model.trace(batch):
        with torch.no_grad():
            finite, logits, output, attention, similarity = _body(model, names, here, make, reference, given, cls_only)
        nnsight.save(finite)
        nnsight.save(logits)
        nnsight.save(output)
        nnsight.save(attention)
        nnsight.save(similarity)
    if not finite:
        raise RunError("NaN or infinity in the residual stream. Look at the checkpoint's weights, or use float32.")
    logits, output, attention, similarity = (x.float().cpu() for x in (logits, output, attention, similarity))
    return logits, output, attention if len(attention) else None, similarity if len(similarity) else None


def _body(
    model: VisionModel,
    names: Sequence[str],
    here: str | None,
    make: TokenEdit,
    reference: Tensor | None,
    given: Head | None,
    cls_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    cls = model.layout.index("cls") if model.family.has_cls else None
    stream: list[Tensor] = []
    patterns: list[Tensor] = []
    ends: dict[str, Tensor] = {}

    def visit(name: str, value: Tensor) -> Tensor | None:
        if name.endswith("hook_pattern"):
            patterns.append(value[0, :, cls].clone())  # (head, token)
            return None
        if not name.startswith("blocks."):
            ends[name] = value[0].clone()
            return None
        changed = None
        if name == here:
            changed = value.clone()
            changed[0, cls] = make((value[1:, cls] if reference is None else reference).to(value))[0]
            value = changed
        if name.endswith("hook_resid_post"):
            stream.append(value[0].clone())  # (token, d_model)
        return changed

    walk(model, names, visit)
    head = given or Head.of(model.family, model.heads)
    tokens = torch.stack(stream)
    features = ends["hook_readout"]
    if cls_only:
        output = head.only("cls", features)
    else:
        output = ends["hook_logits"] if given is None else head(features)
    attention = torch.stack(patterns) if patterns else torch.empty(0)
    similarity = torch.empty(0)
    if cls is not None:
        similarity = torch.cosine_similarity(tokens.float(), tokens[:, cls, None].float(), dim=-1)
    return torch.isfinite(tokens).all(), token_logits(model, tokens, head), output, attention, similarity
