"""Attention knock-out: some tokens can't read some others in a block, or read something else in their place.

The scores of what may not be read are minus infinity before the softmax, so the rest of a row is renormalised, and a token that
may read itself only gets its own value vector. That takes away more than what was read: heads put attention that they have no
use for on tokens that are always there (attention sinks: Xiao et al. 2023, arXiv 2309.17453; in vision transformers Darcet et
al. 2023, arXiv 2309.16588, whose registers take that part), and renormalised it goes elsewhere. So a cut can leave the tokens
where they are and put other keys and values into them: at the mean over images (`clsinterp.interventions.mean`) they say nothing
of the image and can still be attended to as before, since the mean key's score is the mean of the scores.

Rows of attention do not depend on each other: only those that a cut touches are computed again, from the block's own queries,
keys and values; the block runs as it always does, fused kernels and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clsinterp.interventions import TokenEdit
from clsinterp.models.block_maps import QKV, by_head, edit_qkv

if TYPE_CHECKING:
    from clsinterp.models.tokens import TokenLayout
    from clsinterp.models.traced import Traced

Span = tuple[int, int | None]  # tokens from .. up to, not including; None: to the end
Hidden = tuple[tuple[Span, Span], ...]  # (readers, read)
Plain = tuple[Hidden, TokenEdit | None]  # a `Cut` as a tuple


@dataclass(frozen=True)
class Cut:
    """Who may not read whom.

    Attributes:
        hidden: (readers, read) spans of tokens: the first may not read the second, whatever else is said of them; but a token
            can always read itself.
        instead: what the readers find in the place of the others' keys and of their values: a function of either, (batch, head,
            token, d_head); None: nothing, not even a place.
    """

    hidden: Hidden
    instead: TokenEdit | None = None

    @property
    def plain(self) -> Plain:
        """As a tuple, which travels."""
        return self.hidden, self.instead


def visible(hidden: Hidden, n: int) -> Tensor:
    """For `n` tokens: (reader, read), whether it may be read."""
    seen = torch.ones(n, n, dtype=torch.bool)
    for readers, read in hidden:
        seen[slice(*readers), slice(*read)] = False
    return seen | torch.eye(n, dtype=torch.bool)


def reads_nothing(layout: TokenLayout, keep: Sequence[str] = (), instead: TokenEdit | None = None) -> Cut:
    """The CLS token, and DeiT's distillation token, reads nothing but itself and the groups `keep`; or else `instead`.

    Raises:
        RequestError: the model has no CLS token, or none of `keep`.
    """
    layout.index("cls")
    rows = [layout.slices[group] for group in ("cls", "distill") if group in layout.slices]
    for group in keep:
        layout.index(group)
    others = [where for group, where in layout.slices.items() if group not in keep]
    return Cut(tuple(((r.start, r.stop), (o.start, o.stop)) for r in rows for o in others), instead)


def is_not_read(layout: TokenLayout, by: str = "patches", instead: TokenEdit | None = None) -> Cut:
    """The tokens `by` can't read the CLS token, nor DeiT's distillation token; or read `instead` of them.

    Raises:
        RequestError: the model has no CLS token.
    """
    layout.index("cls")
    read = [layout.slices[group] for group in ("cls", "distill") if group in layout.slices]
    rows = layout.slices[by]
    return Cut(tuple(((rows.start, rows.stop), (r.start, r.stop)) for r in read), instead)


def cut_block(model: Traced, layer: int, rows: Sequence[tuple[slice, Plain]]) -> None:
    """Inside a trace, in block `layer`: attention of the batch's `rows`, each with its cut; `instead` is of those rows alone."""
    attn = model.blocks[layer].attn
    args, kwargs = attn.inputs
    qkv = edit_qkv(model, layer, QKV, lambda letter, value: (value, False))
    out = getattr(attn, model.family.attn_out)
    z = by_head(out.input, model.n_heads).clone()  # (batch, token, head, d_head)
    for here, (hidden, instead) in rows:
        shown = visible(hidden, z.shape[1]).to(z.device)
        touched = (~shown).any(dim=1).nonzero().flatten()
        q, k, v = (qkv[letter][here].transpose(1, 2) for letter in QKV)  # (batch, head, token, d_head)
        own = [_of(value, here, len(z)) for value in args], {name: _of(x, here, len(z)) for name, x in kwargs.items()}
        shown = shown[touched]
        scores = model.family.scores(attn._module, q, k, *own)[:, :, touched]  # (batch, head, touched, token)
        if instead is None:
            new = scores.masked_fill(~shown, -torch.inf).softmax(dim=-1) @ v
        else:
            others = model.family.scores(attn._module, q, instead(k), *own)[:, :, touched]
            pattern = torch.where(shown, scores, others).softmax(dim=-1)
            new = (pattern * shown) @ v + (pattern * ~shown) @ instead(v)
        new = new.transpose(1, 2)
        if model.family.after_mixing:
            new = model.family.after_mixing(attn._module, new, (args[0][here][:, touched],))
        rows_of_z = z[here].clone()
        rows_of_z[:, touched] = new
        z[here] = rows_of_z
    out.input = z.flatten(2)


def _of(value: Any, rows: slice, n: int) -> Any:
    """What an attention module was given, for these `rows` of a batch of `n`: a bias of each image's own is cut, others stay."""
    own = isinstance(value, Tensor) and value.ndim == 4 and len(value) == n
    return value[rows] if own else value
