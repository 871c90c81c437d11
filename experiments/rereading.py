"""Where does the CLS token read what the output uses? Its attention knocked out, block by block.

New here. A swap that changes nothing at layer l (the note of 2026-01-20) says that the output doesn't depend on which image's
CLS token stands there; it doesn't say where the output's information comes from instead. If it is read again later, a CLS
token that may not read before has lost nothing, and one that may not read afterwards has lost all of it.

Method. Scores of what may not be read are minus infinity before the softmax, in all heads of a block; the other rows of
attention are as they were. The CLS token (with DeiT's distillation token) reads nothing but itself in blocks 0 to l
(`knock_until`), from block l on (`knock_from`), or in a few blocks from l on (`knock_at`, --window); where there are registers,
once without and once with them (`_registers`). `knock_patches_until`: patches can't read the CLS token in blocks 0 to l. Of the
output, and of the CLS read-out alone with the others held at their mean over the train images (`_cls_only`): accuracy; cost,
intact minus knocked out on the same images; agreement, the share of answers that are the intact ones. Beside it the swap
(`shuffle`) and a ridge probe of the intact CLS token. The floor is a CLS token that never reads, `knock_until` the last block.
Half read after: the first l at which `knock_until` costs half of what never reading does, and the last at which `knock_from`
does. Neither is given where never reading costs nothing beyond its 95% interval.

What else would give the same curves. A knock-out takes away more than information: a CLS token that attends to itself alone
gets its own value vector at full weight, which no block has seen in training, so a cost can be damage and not a loss of what
would have been read. `knock_until` at l costing nothing is free of that doubt; a cost is not, and early blocks may read what no
label needs, such as a scale that later blocks expect. A `knock_from` that costs nothing says that reading was over by l, or
that the read-out takes the label elsewhere (patches, registers). Registers may pass on what they read, hence both variants.
Patches may park attention on the CLS
token that they have no use for; kept from it they read each other instead, so `knock_patches_until` costing much is no proof that
they took the label from it. `knock_until` and `knock_from` can both be costly at one l:
then the label is read on both sides, and each part is needed.

    python experiments/rereading.py zoo/vit --data zoo --out runs/rereading
"""

import pyarrow as pa

from clsinterp.figures.knock import knock_figure
from clsinterp.studies.command import Findings, study
from clsinterp.studies.rereading.half import halves
from clsinterp.studies.rereading.measure import add_rows, measured
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.knock import WINDOW, knock_outs
from clsinterp.sweeps.plan import block_passes
from clsinterp.sweeps.variants import MOST

SHOWN = ("probe", "shuffle", "knock_until", "knock_from", "knock_at", "knock_patches_until")
BLOCKS = {"type": int, "default": WINDOW, "help": f"blocks of knock_at (default {WINDOW})"}


@study(options={"--window": BLOCKS})
def main(setup: Setup, args) -> Findings:
    edits = knock_outs(setup.model, setup.layers, args.window)
    rows = Rows(**setup.facts())
    add_rows(rows, measured(setup, edits))
    shared, alone = block_passes(list(edits.values()), len(setup.layers), MOST)
    table = rows.table()
    accurate = pa.Table.from_pylist(pick(table, metric="accuracy"))
    summary = wide(accurate, "layer", "curve", [c for c in SHOWN if pick(accurate, curve=c)])
    (intact,) = [row["value"] for row in pick(accurate, curve="intact")]
    notes = (
        f"output intact {intact:.3f}; {halves(table)}; block-passes of an image: {shared} with shared rows, {alone} with a "
        "forward for each knock-out",
    )
    figure = knock_figure(table, setup.name, len(setup.layers), args.window)
    return Findings(summary, [figure], {"rereading": table}, notes)


if __name__ == "__main__":
    main()
