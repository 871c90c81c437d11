"""Batches of pixels, decoded and preprocessed in worker processes with the checkpoint's own processor."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clsinterp.data import Split
from clsinterp.errors import RequestError
from clsinterp.units import Unit

MAX_WORKERS = 8
FEW = 512  # below this a worker's start-up costs more than it saves


class _Images(Dataset):
    """Image i as pixels, or the message that says why not: an exception would lose its text on the way to the parent."""

    def __init__(self, split: Split, processor: Any) -> None:
        self.split, self.processor = split, processor

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> Tensor | str | None:
        try:
            image = self.split.image(i)
        except RequestError as error:
            return str(error)
        if self.processor is None:
            return None
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def default_workers(n: int, sharers: int = 1) -> int:
    """Worker processes for `n` images: none for a few, else one less than this process's share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if n < FEW else min(MAX_WORKERS, max(1, cores // sharers - 1))


def _loader(split: Split, processor: Any, batches: Iterable[list[int]], workers: int) -> Iterator[list[Any]]:
    yield from DataLoader(
        _Images(split, processor),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=4 if workers else None,
    )


def stream(
    split: Split, processor: Any, size: int, units: Iterable[Unit], workers: int
) -> Iterator[tuple[Unit, int, Tensor]]:
    """For each batch of `units`: its unit, its number, its pixels (batch, channel, height, width).

    `units` is read a few batches ahead where `workers` decode images.

    Raises:
        RequestError: an unreadable image, named.
    """
    n = len(split)
    ahead: deque[tuple[Unit, int]] = deque()

    def places() -> Iterator[list[int]]:
        for unit in units:
            for b in range(unit.start, unit.stop):
                ahead.append((unit, b))
                yield list(range(b * size, min((b + 1) * size, n)))

    for items in _loader(split, processor, places(), workers):
        for item in items:
            if isinstance(item, str):
                raise RequestError(item)
        unit, b = ahead.popleft()
        yield unit, b, torch.stack(items)


def without_unreadable(
    split: Split, workers: int | None = None, known: list[str] | None = None, size: int = 64
) -> Split:
    """`split` without the images that cannot be decoded, which are listed in ``skipped``.

    Decodes every image once, unless the sources of the unreadable ones are `known`.
    """
    n = len(split)
    if known is None:
        todo = [list(range(start, min(start + size, n))) for start in range(0, n, size)]
        parts = _loader(split, None, todo, default_workers(n) if workers is None else workers)
        good = [i for i, item in enumerate(item for items in parts for item in items) if item is None]
    else:
        unreadable = set(known)
        good = [i for i, source in enumerate(split.sources) if source not in unreadable]
    if not good:
        raise RequestError("no image of the split can be read.")
    kept = set(good)
    bad = tuple(source for i, source in enumerate(split.sources) if i not in kept)
    return replace(split.keep(good), skipped=bad)
