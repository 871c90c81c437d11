"""The label erased from the CLS token at one layer at a time: what ``--also erasure`` fits and does.

`clsinterp.probing.leace` says what erasing is, and what it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.probing.leace import Eraser, leace
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.variants import Edit, on

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel


def fit_eraser(stats: RidgeStats, alphas: tuple[float, ...]) -> dict[str, Tensor]:
    """The eraser of one layer, with the penalty that its probe chooses among `alphas`: ``left``, ``right``, ``mean``.

    Directions that are not there (fewer than one less than the classes) are zeros, so that layers can be stacked.
    """
    eraser = leace(stats, 0, float(solve(stats, alphas).alpha[0]))
    missing = stats.counts.shape[1] - 1 - len(eraser.right)
    left = torch.nn.functional.pad(eraser.left, (0, max(0, missing)))
    right = torch.nn.functional.pad(eraser.right, (0, 0, 0, max(0, missing)))
    return {"left": left.contiguous(), "right": right.contiguous(), "mean": eraser.mean}


def erasures(model: VisionModel, layers: Sequence[int], fitted: Mapping[str, Tensor]) -> dict[tuple[str, int], Edit]:
    """An edit for each layer, by curve and layer.

    Args:
        model: the model.
        layers: where the label is erased, in the order of `fitted`.
        fitted: what `fit_eraser` gave, layers in front.
    """
    where = model.layout.index("cls")
    parts = zip(layers, fitted["left"], fitted["right"], fitted["mean"], strict=True)
    # Copies: a slice that travels to a server takes the whole tensor with it.
    return {
        ("erased", layer): Edit({layer: on(where, Eraser(left.clone(), right.clone(), mean.clone()))})
        for layer, left, right, mean in parts
    }
