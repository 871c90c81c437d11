"""The train pass: ridge statistics of units of batches, and their sums over units along the fixed tree.

A unit's file can take longer to write than its batches take a GPU. So finished units wait in memory, added up along the
tree, until computing them took `WORTH` times as long as the last writing did: what a crash can lose stays about that.
"""

import os
import re
import time
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from clsinterp.models.layers import not_finite
from clsinterp.models.placement import exact
from clsinterp.probing.ridge import FOLDS, RidgeStats
from clsinterp.runs.folder import TREE, RunFolder
from clsinterp.runs.parts import load_tensors, save_tensors, verified
from clsinterp.runs.units import Layout, Range, Unit, halves, parent, sum_file, tree_sum
from clsinterp.runs.workload import Workload
from clsinterp.sweeps.capture import capture

WORTH = 10  # seconds of computing for each of writing
HELD = 2e9  # bytes of finished sums that may wait in memory


class TrainSums:
    """Statistics of the CLS tokens at every layer, and of the read-out where a head is wanted, of units of batches."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.labels = torch.tensor(workload.train.labels)
        model = workload.model
        self.parts = len(model.heads) if model.family.averages_heads else 1
        self.n_units = len(workload.unit_layout.units("train"))
        self.held: list[tuple[Range, dict[str, Tensor]]] = []  # neighbours in the tree are added up
        self.since, self.cost = time.monotonic(), 0.0  # of the last writing: when it ended, seconds it took
        self._begin()

    def _begin(self) -> None:
        """Begin a unit."""
        workload, model = self.workload, self.workload.model
        n_classes, folds = len(workload.train.class_names), min(FOLDS, len(workload.train))
        width = model.d_model * len(model.family.readouts) // self.parts
        where = exact(model.device)  # the sums of ViT-B take a CPU longer than the forward takes a GPU
        self.stats = {"cls": RidgeStats.zeros(len(workload.layers), model.d_model, n_classes, folds, where)}
        if workload.wants_head:
            self.stats["head"] = RidgeStats.zeros(self.parts, width, n_classes, folds, where)
        width_of_all = model.d_model * len(model.family.readouts)
        self.readout_sum = torch.zeros(width_of_all, dtype=torch.float64) if workload.wants_rest else None

    def add(self, b: int, pixels: Tensor) -> None:
        """Add batch number `b`.

        Raises:
            RunError: NaN or infinity; the message names the layer.
        """
        size = self.workload.request.batch_size
        index = torch.arange(b * size, b * size + len(pixels))
        tokens, readout = capture(self.workload.model, pixels, self.workload.layers)
        _refuse_non_finite(tokens, self.workload.layers)
        self.stats["cls"].update(tokens, self.labels[index], index)
        if self.readout_sum is not None:
            self.readout_sum += readout.cpu().double().sum(0)
        if "head" in self.stats:
            features = torch.stack(readout.chunk(self.parts, dim=-1))
            self.stats["head"].update(features, self.labels[index], index)

    def finish(self, unit: Unit) -> bool:
        """End the unit. Whether what is finished should be written now."""
        state = {f"{name}.{key}": value for name, s in self.stats.items() for key, value in vars(s).items()}
        if self.readout_sum is not None:
            state["readout.sum"] = self.readout_sum
        self.held.append(((unit.index, unit.index + 1), state))
        while len(self.held) > 1 and (both := parent(self.held[-1][0], self.n_units)):
            (left, sums), (right, more) = self.held[-2:]
            if halves(both) != (left, right):
                break
            for key, value in more.items():
                sums[key] += value
            self.held[-2:] = [(both, sums)]
        self._begin()
        waiting = sum(t.nbytes for _, sums in self.held for t in sums.values())
        return waiting > HELD or time.monotonic() - self.since >= WORTH * self.cost

    def save(self, folder: RunFolder) -> None:
        """Write what is finished: a file for each range of units."""
        begun = time.monotonic()
        while self.held:
            units, sums = self.held.pop(0)
            save_tensors(folder, folder.work / sum_file(units), {key: value.cpu() for key, value in sums.items()})
            _add_up(folder, units, self.n_units)
        self.since = time.monotonic()
        self.cost = self.since - begun


def _add_up(folder: RunFolder, units: Range, n: int) -> None:
    """Replace files of neighbours in the tree by their sum, from that of `units` upwards, so that few files lie on the disk.

    If another process is at it, nothing is done: `total` does it later.
    """
    with folder.alone(TREE) as free:
        if not free:
            return
        above = units
        while both := parent(above, n):
            left, right = (folder.work / sum_file(half) for half in halves(both))
            if not (folder.work / sum_file(both)).exists():
                if not (left.exists() and right.exists()):
                    return
                _write_sum(folder, both, set(halves(both)))
            left.unlink(missing_ok=True)
            right.unlink(missing_ok=True)
            above = both


def total(folder: RunFolder, layout: Layout) -> Path | None:
    """The file with the statistics of the whole train pass, made if need be; None while another process makes it.

    Raises:
        LookupError: units are missing.
    """
    path = folder.work / layout.total
    if not path.exists():
        with folder.alone(TREE) as free:
            if not free:
                return None
            if not path.exists():
                everything = (0, len(layout.units("train")))
                there = _sums(folder)
                _write_sum(folder, everything, there)
                for part in there - {everything}:
                    (folder.work / sum_file(part)).unlink(missing_ok=True)
    return verified(folder, path)


def _sums(folder: RunFolder) -> set[Range]:
    """The ranges of units of which there is a sum."""
    names = (re.fullmatch(r"train-(\d{5,})-(\d{5,})\.safetensors", name) for name in os.listdir(folder.work))
    return {(int(found[1]), int(found[2])) for found in names if found}


def _write_sum(folder: RunFolder, units: Range, there: Collection[Range]) -> None:
    def known(part: Range) -> dict[str, Tensor] | None:
        return load_tensors(folder, folder.work / sum_file(part)) if part in there else None

    summed = tree_sum(units, known, lambda a, b: {key: a[key] + b[key] for key in a})
    save_tensors(folder, folder.work / sum_file(units), summed)


def _refuse_non_finite(tokens: Tensor, layers: tuple[int, ...]) -> None:
    finite = torch.isfinite(tokens).all(-1).all(-1)
    if not finite.all():
        layer = layers[int((~finite).nonzero()[0])]
        raise not_finite(layer)
