"""What reads the CLS tokens of a tiny model in a sweep: its head, and probes of random data."""

import tiny
import torch

from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.readers import Readers

ALL = tuple(range(-1, tiny.LAYERS))


def readers(model, layers=ALL, own=True, final_norm=True, refit=False, held=False, n_classes=tiny.CLASSES) -> Readers:
    """Random probes at `layers`, and the model's head or, without `own` or where it has none, a random one.

    Args:
        refit: also a random head on the CLS token alone.
        held: also a random vector for what is not the CLS token's in the read-out.
        n_classes: of the probes.
    """
    draw = torch.Generator().manual_seed(5)
    stats = RidgeStats.zeros(len(layers), tiny.WIDTH, n_classes)
    x, index = torch.randn(len(layers), 90, tiny.WIDTH, generator=draw), torch.arange(90)
    stats.update(x, index % n_classes, index)
    if own and model.checkpoint.head_is_own:
        head = Head.of(model.family, model.heads)
    else:
        parts = len(model.heads) if model.family.averages_heads else 1
        width = tiny.WIDTH * len(model.family.readouts) // parts
        maps = [torch.randn(tiny.CLASSES, width, generator=draw, dtype=torch.float64) for _ in range(parts)]
        head = Head(tuple(maps), tuple(m[:, 0] for m in maps), model.family.readouts, own=False)
    cls_head = None
    if refit and model.family.other_readouts:
        alone = torch.randn(tiny.CLASSES, tiny.WIDTH, generator=draw, dtype=torch.float64)
        cls_head = Head((alone,), (alone[:, 0],), ("cls",), own=False)
    rest = torch.randn(tiny.WIDTH * len(model.family.readouts), generator=draw) if held else None
    return Readers(head, cls_head, rest, solve(stats), layers, final_norm)
