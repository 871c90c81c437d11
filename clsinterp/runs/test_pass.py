"""The test pass: one fork per batch, ranks and answers of every image for every curve."""

import pyarrow as pa
import torch
from torch import Tensor

from clsinterp.runs.extras import Measurement
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.parts import save_rows
from clsinterp.runs.units import Unit
from clsinterp.runs.workload import Workload
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers

SMALL = pa.int16()  # of a class; no classifier of images has more than 32,767


class RankRows:
    """Rows of the per-image table of one unit's batches, `at_once` images riding together."""

    def __init__(self, workload: Workload, readers: Readers, at_once: int, also: Measurement) -> None:
        self.workload, self.readers, self.at_once, self.also = workload, readers, at_once, also
        self.labels = torch.tensor(workload.test.labels)
        self.targets = torch.tensor(workload.match.classes)[self.labels]
        self.tables: list[pa.Table] = []
        self.file = ""  # of the unit that is finished

    def add(self, b: int, pixels: Tensor) -> None:
        """Measure batch number `b`."""
        workload = self.workload
        start = b * workload.request.batch_size
        here = slice(start, start + len(pixels))
        beside = self.also(pixels, self.targets[here], self.labels[here], self.at_once)  # alike under every swap
        for swap in range(workload.request.swaps):
            replace = workload.replacement(b, swap)
            found = fork(
                workload.model,
                pixels,
                self.targets[here],
                replace,
                self.readers,
                layers=workload.layers,
                labels=self.labels[here],
                group=workload.request.group,
                micro_batch=self.at_once,
            )
            found |= beside
            donor = (
                pa.nulls(len(pixels), pa.int32())
                if callable(replace)
                else pa.array((replace + start).tolist(), pa.int32())
            )
            columns = {
                "index": pa.array(range(here.start, here.stop), pa.int32()),
                "swap": pa.array([swap] * len(pixels), pa.int16()),
                "source": pa.array(workload.test.sources[here]),
                "label": pa.array(workload.test.labels[here], pa.int32()),
                "donor": donor,
            }
            types = {name: SMALL if name.startswith("answer") else pa.int32() for name in sorted(found)}
            self.tables.append(pa.table(columns | {n: pa.array(found[n].tolist(), t) for n, t in types.items()}))

    def finish(self, unit: Unit) -> bool:
        """End the unit; its file is small, so it is written at once."""
        self.file = self.workload.unit_layout.files(unit)[0]
        return True

    def save(self, folder: RunFolder) -> None:
        """Write the unit's file."""
        save_rows(folder, folder.work / self.file, pa.concat_tables(self.tables))
        self.tables = []
