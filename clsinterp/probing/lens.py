"""The logit lens: the classifier applied to tokens of any layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clsinterp.errors import RequestError
from clsinterp.models.attention_pooling import alone
from clsinterp.models.family import Family
from clsinterp.models.norms import normalised
from clsinterp.models.readouts import MAP, POOLED
from clsinterp.probing.head import Head

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.models.traced import Traced


def lens_readout(family: Family, group: str = "cls") -> str:
    """The read-out whose part of the classifier the lens uses on tokens of `group`.

    A group's own read-out where it has one (DeiT's distillation head on the distillation token, DINOv2's CLS half on
    the CLS token, its patch half on patches), else the first.
    """
    own = {group, *(readout for readout, pooled in POOLED.items() if pooled == group)}
    return next((readout for readout in family.readouts if readout in own), family.readouts[0])


def lens_logits(
    tokens: Float[Tensor, "*rows d_model"], head: Head, readout: str, norm: nn.Module | None
) -> Float[Tensor, "*rows classes"]:
    """Logits that the classifier gives to `tokens` of the residual stream.

    Args:
        tokens: any tokens of any layer.
        head: the classifier.
        readout: which part of it reads them, see `lens_readout`.
        norm: the final norm to apply first (Vilas et al. 2023), or None (the published note; CLIP has none).
    """
    if norm is not None:
        tokens = normalised(norm, tokens)
    return head.read(tokens, readout)


def token_logits(
    model: Traced, tokens: Float[Tensor, "*rows token d_model"], head: Head | None = None
) -> Float[Tensor, "*rows token classes"]:
    """The lens on every token of the residual stream, each group through its part of the classifier, final norm first.

    CLS, distillation and patch tokens have the read-out `lens_readout` names. So DINOv2's patches go through the
    patch-mean half; DeiT's patches, which no head of its reads, through the CLS head; register tokens likewise. Where
    the read-out is attention pooling, each token is pooled by itself.

    Args:
        model: gives the token layout, the family's rules and the final norm.
        tokens: the residual stream after any block, all tokens.
        head: the classifier; default the model's own.

    Raises:
        RequestError: no `head`, and the checkpoint has no classifier.
    """
    head = head or own_head(model)
    norm = model.lens_norm
    if MAP in model.family.readouts:  # all tokens are read the same way
        normed = tokens if norm is None else normalised(norm, tokens)
        pooling: Any = model._module.get_submodule(model.family.pooling or "")
        return head.read(alone(pooling, normed), MAP)
    return torch.cat(
        [
            lens_logits(tokens[..., where, :], head, lens_readout(model.family, group), norm)
            for group, where in model.layout.slices.items()
        ],
        dim=-2,
    )


def own_head(model: Traced) -> Head:
    """The checkpoint's own classifier.

    Raises:
        RequestError: it has none.
    """
    if model.checkpoint.head_is_own:
        return Head.of(model.family, model.heads)
    raise RequestError(
        f"{model.checkpoint.source or 'this checkpoint'} has no classifier, so there is nothing a lens could read "
        "tokens with; model.with_head(model.fit_head(data)) puts one there, as does classifier=RUN with a run that fitted one."
    )
