"""Batches of pixels, decoded and preprocessed in worker processes with the checkpoint's own processor."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clsinterp.data.preprocess import Preprocess
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError

T = TypeVar("T")
MAX_WORKERS = 8
FEW = 512  # below this a worker's start-up costs more than it saves


class _Images(Dataset):
    """Images of a split, a batch at a time: their pixels, and for each the message that says why it cannot be read.

    Messages instead of exceptions, which would lose their text on the way from a worker to the parent.
    """

    def __init__(self, split: Split, processor: Any) -> None:
        self.split, self.preprocess = split, Preprocess(processor) if processor is not None else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, places: list[int]) -> tuple[Tensor | None, list[str | None]]:
        images: list[Any] = []
        messages: list[str | None] = []
        for i in places:
            try:
                images.append(self.split.image(i))
                messages.append(None)
            except RequestError as error:
                messages.append(str(error))
        if self.preprocess is None or len(images) < len(places):
            return None, messages
        # One call and one tensor per batch: each call costs checks, each tensor a file descriptor on its way over.
        return self.preprocess(images), messages


def _as_it_is(batch: Any) -> Any:  # a function of the module, so that it can be sent to a worker
    return batch


def default_workers(n: int, sharers: int = 1) -> int:
    """Worker processes for `n` images: none for a few, else one less than this process's share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if n < FEW else min(MAX_WORKERS, max(1, cores // sharers - 1))


def _loader(
    split: Split, processor: Any, batches: Iterable[list[int]], workers: int
) -> Iterator[tuple[Tensor | None, list[str | None]]]:
    yield from DataLoader(
        _Images(split, processor),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
    )


def stream(
    split: Split, processor: Any, size: int, parts: Iterable[tuple[T, range]], workers: int
) -> Iterator[tuple[T, int, Tensor]]:
    """The batches of `parts`, each a tag and the numbers of its batches: tag, number, pixels (batch, channel, height, width).

    `parts` is read a few batches ahead where `workers` decode images.

    Raises:
        RequestError: an unreadable image, named.
    """
    n = len(split)
    ahead: deque[tuple[T, int]] = deque()

    def places() -> Iterator[list[int]]:
        for tag, numbers in parts:
            for b in numbers:
                ahead.append((tag, b))
                yield list(range(b * size, min((b + 1) * size, n)))

    for pixels, messages in _loader(split, processor, places(), workers):
        if pixels is None:
            raise RequestError(next(message for message in messages if message is not None))
        yield *ahead.popleft(), pixels


def batches(split: Split, processor: Any, size: int, first: int = 0, workers: int | None = None) -> Iterator[Tensor]:
    """Pixels (batch, channel, height, width) of the batches from number `first` on; the last may be ragged.

    Raises:
        RequestError: an unreadable image, named.
    """
    n = len(split)
    workers = default_workers(n - first * size) if workers is None else workers
    for _, _, pixels in stream(split, processor, size, [(None, range(first, -(-n // size)))], workers):
        yield pixels


def without_unreadable(
    split: Split, workers: int | None = None, known: list[str] | None = None, size: int = 64
) -> Split:
    """`split` without the images that cannot be decoded, which are listed in ``skipped``.

    Decodes every image once, unless the sources of the unreadable ones are `known`.
    """
    n = len(split)
    if known is None:
        todo = [list(range(start, min(start + size, n))) for start in range(0, n, size)]
        checked = _loader(split, None, todo, default_workers(n) if workers is None else workers)
        found = [message for _, messages in checked for message in messages]
        good = [i for i, item in enumerate(found) if item is None]
    else:
        unreadable = set(known)
        good = [i for i, source in enumerate(split.sources) if source not in unreadable]
    if not good:
        raise RequestError("no image of the split can be read.")
    kept = set(good)
    bad = tuple(source for i, source in enumerate(split.sources) if i not in kept)
    return replace(split.keep(good), skipped=bad)
