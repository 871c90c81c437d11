"""Train with augmentation, then settle: one more epoch, slowly, on images as they will be at test time.

Small models underfit shifts and flips to the end; the last epoch gives back what that costs on images as they are.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import torch
from torch import nn

SETTLING = common.Schedule(1, lr=3e-4, warmup=0.02)

View = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def as_they_are(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """No augmentation."""
    return images


def fit(
    stage: str,
    module: nn.Module,
    groups_of: Callable[[common.Schedule], list[dict]],
    loss_of: Callable[[torch.Tensor, torch.Generator, View], torch.Tensor],
    n: int,
    schedule: common.Schedule,
    seed: int,
    workdir: Path,
    **hooks: Any,
) -> float:
    """`common.fit` with `schedule`, then with `SETTLING`; the minutes of both.

    `loss_of(index, generator, view)` passes its images through `view`. `hooks` go to `common.fit`.
    """
    return sum(
        common.fit(name, module, groups_of(plan), partial(loss_of, view=view), n, plan, seed, workdir, **hooks)
        for name, plan, view in ((stage, schedule, common.augment), ("settling", SETTLING, as_they_are))
    )
