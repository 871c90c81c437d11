"""The test pass: one fork per batch, ranks of every image for every curve."""

import time

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from clsinterp.fork import Readers, fork
from clsinterp.loader import batches
from clsinterp.request import SAVE_EVERY, Progress
from clsinterp.results import RunFolder
from clsinterp.study import Study


def measure(study: Study, folder: RunFolder, readers: Readers, at_once: int, progress: Progress) -> pa.Table:
    """The per-image table, `at_once` images riding together; batches already in the folder are not computed again."""
    n, size = len(study.test), study.request.batch_size
    tables = [pq.read_table(p) for p in sorted(folder.work.glob("test-*.parquet"))]
    done = sum(len(t) for t in tables)
    first = -(-done // size)  # only the last batch can be ragged, and then everything is done
    labels = torch.tensor(study.test.labels)
    targets = torch.tensor(study.match.classes)[labels]
    pending: list[pa.Table] = []
    progress("test", done, n)
    saved_at = time.monotonic()

    def save(upto: int) -> None:
        # Sorted file names are the order of the images.
        table = pa.concat_tables(pending)
        folder.write_table(folder.work / f"test-{upto:010d}.parquet", table)
        tables.append(table)
        pending.clear()

    for b, pixels in enumerate(
        batches(study.test, study.model.image_processor, size, first, study.workers), start=first
    ):
        here = slice(b * size, b * size + len(pixels))
        ranks = fork(
            study.model,
            pixels,
            targets[here],
            study.donors[b],
            readers,
            layers=study.layers,
            labels=labels[here],
            micro_batch=at_once,
        )
        pending.append(_rows(study, here, study.donors[b] + here.start, ranks))
        progress("test", here.stop, n)
        if time.monotonic() - saved_at > SAVE_EVERY:
            save(here.stop)
            saved_at = time.monotonic()
    if pending:
        save(n)
    return pa.concat_tables(tables).combine_chunks()


def _rows(study: Study, here: slice, donor: Tensor, ranks: dict[str, Tensor]) -> pa.Table:
    columns = {
        "index": pa.array(range(here.start, here.stop), pa.int32()),
        "source": pa.array(study.test.sources[here]),
        "label": pa.array(study.test.labels[here], pa.int32()),
        "donor": pa.array(donor.tolist(), pa.int32()),
    }
    return pa.table(columns | {name: pa.array(ranks[name].tolist(), pa.int32()) for name in sorted(ranks)})
