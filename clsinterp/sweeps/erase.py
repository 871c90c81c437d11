"""The label erased from the CLS token at one layer at a time: what ``--also erasure`` fits, does and reads.

`clsinterp.probing.leace` says what erasing is, and what it leaves. Nothing here needs a further pass over the train images: the
eraser stands on the sums of the ridge probes, and so does a fresh probe of the erased tokens, whose sums follow from those. That
probe has nothing to go by, as its training tokens have no covariance with the label, and answers the most frequent one: a check
that erasing did what it says, and no finding. How the label comes back at later layers is read by the probes of intact tokens
there. Fresh ones would have to be fitted on train images that ran on under each erasure, a further pass with a copy per layer:
``experiments/erasure.py`` makes it, and also fits probes on erased test tokens, to see what is left on images that the eraser
was not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.probing.leace import Eraser, erased, leace
from clsinterp.probing.ridge import Ridge, RidgeStats, solve
from clsinterp.sweeps.answers import Reading
from clsinterp.sweeps.columns import column
from clsinterp.sweeps.variants import Edit, on

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel

RIDGE = ("weight", "bias", "alpha", "cv_error")  # fields of a `Ridge`


def fit_eraser(stats: RidgeStats, alphas: tuple[float, ...]) -> dict[str, Tensor]:
    """The eraser of one layer, and a fresh probe of what it leaves.

    Args:
        stats: sums of the CLS token at that layer, as a regression.
        alphas: penalties that probes choose among; the eraser has that of the layer's probe.

    Returns:
        ``left``, ``right``, ``mean`` of the `Eraser`; directions that are not there (fewer than one less than the classes) are
        zeros, so that layers can be stacked. ``fresh_weight``, ``fresh_bias``, ``fresh_alpha``, ``fresh_cv_error`` of the probe.
    """
    eraser = leace(stats, 0, float(solve(stats, alphas).alpha[0]))
    fresh = solve(erased(stats, 0, eraser), alphas)
    missing = stats.counts.shape[1] - 1 - len(eraser.right)
    left = torch.nn.functional.pad(eraser.left, (0, max(0, missing)))
    right = torch.nn.functional.pad(eraser.right, (0, 0, 0, max(0, missing)))
    made = {"left": left.contiguous(), "right": right.contiguous(), "mean": eraser.mean}
    return made | {f"fresh_{name}": getattr(fresh, name)[0].contiguous() for name in RIDGE}


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


def readings(layers: Sequence[int], fitted: Mapping[str, Tensor], probes: Ridge) -> dict[str, Reading]:
    """What reads the erased tokens, by column: the fresh probe at the layer itself, the intact tokens' at every later one.

    At the layer itself theirs says one and the same of every erased token, up to rounding.

    Args:
        layers: where the label is erased, in the order of `fitted` and of `probes`.
        fitted: what `fit_eraser` gave, layers in front.
        probes: of intact tokens.
    """
    fresh = Ridge(*(fitted[f"fresh_{name}"] for name in RIDGE)).to(probes.weight.device)
    places = list(enumerate(layers))
    found = {column("probe_after_erasure", x): Reading(("erased", x), x, fresh, i) for i, x in places}
    return found | {
        column("intact_probe_after_erasure", x, probed): Reading(("erased", x), probed, probes, j)
        for i, x in places
        for j, probed in places[i + 1 :]
    }
