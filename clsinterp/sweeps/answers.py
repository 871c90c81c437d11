"""What readers make of the rows of a trace: ranks of the true class and answers of the classifier, ranks of a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.probing.head import Head
from clsinterp.probing.metrics import ranks
from clsinterp.probing.ridge import Ridge
from clsinterp.sweeps.readers import Readers

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from clsinterp.models.traced import Traced


@dataclass(frozen=True)
class Answers:
    """Reads the output of every copy of a batch; call it inside a trace.

    Attributes:
        readers: classifier, CLS-only classifier.
        targets: each image's class in the classifier's space.
    """

    readers: Readers
    targets: Int[Tensor, " batch"]

    def __call__(self, model: Traced, features: Tensor) -> dict[str, Tensor]:
        """Of features (copies * batch, d_readout): ``rank``, ``answer`` and ``finite`` of every row.

        Families with a CLS read-out and another have ``rank_cls_only`` and ``answer_cls_only`` too.
        """
        readers, family = self.readers.to(features.device), model.family
        # The model's own head is looked up here: on a server it has weights, and where the trace was written it may have none.
        head = Head.of(family, model.heads) if readers.head.own else readers.head
        logits = model.logits if head.own else head(features)
        out = {"finite": torch.isfinite(logits.sum(-1, dtype=torch.float32)), **self._read(logits, "")}
        if family.other_readouts:
            if readers.cls_head is not None:
                parts = features.chunk(len(family.readouts), dim=-1)
                alone = readers.cls_head(parts[family.readouts.index("cls")])
            else:
                alone = head.only("cls", features, readers.rest)
            out |= self._read(alone, "_cls_only")
        return out

    def _read(self, logits: Tensor, which: str) -> dict[str, Tensor]:
        targets = self.targets.to(logits.device).repeat(len(logits) // len(self.targets))
        return {f"rank{which}": ranks(logits, targets).int(), f"answer{which}": logits.argmax(-1).int()}


@dataclass(frozen=True)
class Reading:
    """A probe that reads the CLS token of one copy, when the trace is over.

    Attributes:
        edit: curve and layer by which the copy's edit is known.
        probed: the layer at which the token is read.
        probes: among which the probe is.
        which: its number.
    """

    edit: tuple[str, int]
    probed: int
    probes: Ridge
    which: int

    def ranks(self, tokens: Float[Tensor, "batch d"], labels: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Of each image's label, a class in the probe's space."""
        scores = self.probes.scores(tokens, self.which)
        return ranks(scores, labels.to(scores.device)).int()
