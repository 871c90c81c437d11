"""The classifier as linear maps on read-outs: the model's own or one fitted locally; all of it or the CLS part alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsinterp.errors import RequestError
from clsinterp.models.family import Family
from clsinterp.models.text_head import TextHead, text_logits

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Head:
    """Linear maps from the read-out features to logits.

    Attributes:
        weights, biases: one map on all features (concatenated read-outs), or one per read-out (averaged).
        readouts: what the features are, in order, d_model wide each.
        own: whether these are the checkpoint's own weights.
        projection: the map to the image embedding whose length divides what `weights` give, for a head of class names
            (`clsinterp.models.text_head`); None for every other.
    """

    weights: tuple[Float[Tensor, "classes d_in"], ...]
    biases: tuple[Float[Tensor, " classes"], ...]
    readouts: tuple[str, ...]
    own: bool
    projection: Float[Tensor, "d_embed d_readout"] | None = None

    @classmethod
    def of(cls, family: Family, heads: list[nn.Linear]) -> Head:
        """The checkpoint's own classifier."""
        weights, biases = tuple(h.weight.detach() for h in heads), tuple(h.bias.detach() for h in heads)
        projection = heads[0].projection if len(heads) == 1 and isinstance(heads[0], TextHead) else None
        return cls(weights, biases, family.readouts, own=True, projection=projection)

    @property
    def n_classes(self) -> int:
        """Number of logits."""
        return self.weights[0].shape[0]

    def to(self, device: torch.device) -> Head:
        """The same head on `device`."""
        return Head(
            tuple(w.to(device) for w in self.weights),
            tuple(b.to(device) for b in self.biases),
            self.readouts,
            self.own,
            None if self.projection is None else self.projection.to(device),
        )

    def __call__(self, features: Float[Tensor, "*rows d_readout"]) -> Float[Tensor, "*rows classes"]:
        """Logits of the whole read-out."""
        if len(self.weights) == 1:
            return self._map(0, features)
        parts = features.chunk(len(self.weights), dim=-1)
        return torch.stack([self._map(i, part) for i, part in enumerate(parts)]).mean(0)

    def only(
        self,
        readout: str,
        features: Float[Tensor, "*rows d_readout"],
        at: Float[Tensor, " d_readout"] | None = None,
    ) -> Float[Tensor, "*rows classes"]:
        """Logits with every read-out but one turned off.

        A read-out with a head of its own is read by that head alone (DeiT). Where one map reads all of them (DINOv2), the
        others are held constant.

        Args:
            readout: the one that stays.
            features: all read-outs.
            at: what the others are held at, such as their mean over training images; None is zero, which also takes
                their mean logit away.
        """
        slot = self._slot(readout)
        part = features.chunk(len(self.readouts), dim=-1)[slot]
        if at is None or len(self.weights) > 1:
            return self.read(part, readout)
        rest = at.to(features).chunk(len(self.readouts))
        held = [part if i == slot else value.expand_as(part) for i, value in enumerate(rest)]
        return self._map(0, torch.cat(held, dim=-1))

    def read(self, tokens: Float[Tensor, "*rows d_model"], readout: str) -> Float[Tensor, "*rows classes"]:
        """Logits of single tokens put where `readout` stands, the rest zero: the logit lens's classifier."""
        slot = self._slot(readout)
        if len(self.weights) > 1:
            return self._map(slot, tokens)
        rest = torch.zeros_like(tokens)
        return self._map(0, torch.cat([tokens if i == slot else rest for i in range(len(self.readouts))], dim=-1))

    def _slot(self, readout: str) -> int:
        if readout not in self.readouts:
            raise RequestError(f"there is no {readout} read-out here; the classifier reads {', '.join(self.readouts)}.")
        return self.readouts.index(readout)

    def _map(self, i: int, x: Tensor) -> Tensor:
        if self.weights[i].is_meta:
            raise RequestError("the classifier's weights are on a server; apply it inside a trace.")
        x = x.to(self.weights[i])
        if self.projection is None:
            return F.linear(x, self.weights[i], self.biases[i])
        return text_logits(x, self.weights[i], self.biases[i], self.projection)
