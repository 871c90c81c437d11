"""What reads the rows of a fork: classifier, CLS-only classifier, probes, lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clsinterp.probing.head import Head
from clsinterp.probing.metrics import ranks
from clsinterp.probing.ridge import Ridge
from clsinterp.sweeps.columns import column


@dataclass(frozen=True)
class Readers:
    """What reads the rows of a fork.

    Attributes:
        head: the classifier; if it is the model's own, logits are taken from the model's output itself.
        cls_head: a CLS-only classifier to use for the CLS-only curves instead of turning read-outs off (``refit``).
        rest: what the other read-outs are held at on those curves, (d_readout,) (``mean``); None is zero.
        probes: ridge probes, one per entry of `probed`; None leaves out probe and restoration ranks.
        probed: the layers that `probes` were fitted on; each must be among the fork's layers.
        final_norm: whether the lens applies the final norm.
    """

    head: Head
    cls_head: Head | None = None
    rest: Tensor | None = None
    probes: Ridge | None = None
    probed: tuple[int, ...] = ()
    final_norm: bool = True

    def to(self, device: torch.device) -> Readers:
        """The same readers on `device`."""
        probes = None if self.probes is None else self.probes.to(device)
        cls_head = None if self.cls_head is None else self.cls_head.to(device)
        head = self.head if self.head.own else self.head.to(device)  # the model's own is looked up in the model
        rest = None if self.rest is None else self.rest.to(device)
        return Readers(head, cls_head, rest, probes, self.probed, self.final_norm)

    def tokens_are_smaller(self, layers: Sequence[int], n: int) -> bool:
        """Whether the CLS tokens that the probes read, of `n` images forked at `layers`, are fewer bytes than the probes.

        Then the tokens come down from a server, instead of the probes going up with every batch.
        """
        if self.probes is None:
            return False
        n_rows = n * sum(1 + sum(layer <= probed for layer in layers) for probed in self.probed)
        weight = self.probes.weight
        return n_rows * weight.shape[-1] * 4 < weight.numel() * weight.element_size()

    def probe_ranks(
        self, tokens: dict[int, Tensor], layers: Sequence[int], n: int, labels: Tensor
    ) -> dict[str, Tensor]:
        """Ranks that the probes give to `n` images and their copies.

        Args:
            tokens: the CLS tokens of all rows, (copies * n, d_model), at every probed layer.
            layers: where tokens were replaced, sorted; one copy each.
            n: images.
            labels: their classes in the probes' space.
        """
        if self.probes is None:
            return {}
        out = {}
        for i, (probed, rows) in enumerate(tokens.items()):
            by_copy = self.probes.scores(rows, i).unflatten(0, (-1, n))  # (copy, n, class)
            # All copies at once: a rank is a few small kernels, and hundreds of them keep a GPU waiting.
            rank = ranks(by_copy, labels.expand(by_copy.shape[:2]))
            out[column("probe", probed)] = rank[0]
            for copy, layer in enumerate([x for x in layers if x <= probed], start=1):
                out[column("restoration", layer, probed)] = rank[copy]
        return out
