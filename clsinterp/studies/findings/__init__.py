"""What each study found, in sentences filled in from its table: ``SENTENCES[study](table, notes)``.

A sentence says what the numbers say: where a comparison can turn out either way, so can the words. ``experiments/gallery.py``
writes them into ``experiments/README.md``, and a test compares what stands there with the tables beside it.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa

from clsinterp.studies.findings import (  # fmt: skip
    ablations,
    causality,
    class_space,
    donors,
    erasure,
    frequency,
    head_patching,
    note,
    readouts,
    rereading,
    restoration,
    subspace,
)

SENTENCES: dict[str, Callable[[pa.Table, Sequence[str]], str]] = {
    "note": note.sentence,
    "restoration": restoration.sentence,
    "readouts": readouts.sentence,
    "class_space": class_space.sentence,
    "causality": causality.sentence,
    "frequency": frequency.sentence,
    "ablations": ablations.sentence,
    "donors": donors.sentence,
    "erasure": erasure.sentence,
    "subspace": subspace.sentence,
    "head_patching": head_patching.sentence,
    "rereading": rereading.sentence,
}
TABLE = {"note": "curves"}  # the parquet file of a run folder that a sentence is filled from; default the study's name
