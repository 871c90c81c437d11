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
does, with 95% intervals from 1,000 resamples of the images. Neither is given below 100 images, or where never reading costs
nothing beyond its 95% interval.

Lost sink or lost information. A knock-out takes away more than what was read. Heads put attention that they have no use for on
tokens that are always there (attention sinks: Xiao et al. 2023, arXiv 2309.17453; in vision transformers Darcet et al. 2023,
arXiv 2309.16588). Kept from the CLS token, patches read each other instead; a CLS token that attends to itself alone gets its own
value vector at full weight, which no block has seen in training. So as a control the tokens stay where they are, and their keys
and values are the mean over the images of the batch (`mean_kv_until`, `mean_kv_patches_until`): nothing of the image is read, but
for a share of one over the batch, and there still is a place to attend to. What a knock-out costs more than its control, image
by image, is no information (`sink_until`, `sink_patches_until`); with the sink it counts the constant part of what was read. What
the control costs is information about the image, the label or other, or damage by a mean that no image has.

What else would give the same curves. `knock_until` at l costing nothing is free of that doubt; early blocks may read what no
label needs, such as a scale that later blocks expect. A `knock_from` that costs nothing says that reading was over by l, or that
the read-out takes the label elsewhere (patches, registers). Registers may pass on what they read, hence both variants.
`knock_until` and `knock_from` can both be costly at one l: then the label is read on both sides, and each part is needed.

    python experiments/rereading.py zoo/vit --data zoo --out runs/rereading
"""

import pyarrow as pa

from clsinterp.figures.knock import knock_figure
from clsinterp.studies.command import Findings, study
from clsinterp.studies.rereading.half import add_halves, in_words
from clsinterp.studies.rereading.measure import add_rows, add_sinks, measured
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.knock import WINDOW, keeps_sinks, knock_outs
from clsinterp.sweeps.plan import block_passes
from clsinterp.sweeps.variants import MOST

SHOWN = ("probe", "shuffle", "knock_until", "knock_from", "knock_at", "knock_patches_until",
         "mean_kv_until", "mean_kv_patches_until")  # fmt: skip
BLOCKS = {"type": int, "default": WINDOW, "help": f"blocks of knock_at (default {WINDOW})"}


@study(options={"--window": BLOCKS})
def main(setup: Setup, args) -> Findings:
    edits = knock_outs(setup.model, setup.layers, args.window) | keeps_sinks(setup.model, setup.layers)
    rows = Rows(**setup.facts())
    found = measured(setup, edits)
    add_rows(rows, found)
    add_sinks(rows, found)
    half = add_halves(rows, found, setup.layers, setup.seed)
    shared, alone = block_passes(list(edits.values()), len(setup.layers), MOST)
    table = rows.table()
    accurate = pa.Table.from_pylist(pick(table, metric="accuracy"))
    summary = wide(accurate, "layer", "curve", [c for c in SHOWN if pick(accurate, curve=c)])
    (intact,) = [row["value"] for row in pick(accurate, curve="intact")]
    notes = (
        f"output intact {intact:.3f}; {in_words(half)}; block-passes of an image: {shared} with shared rows, {alone} with a "
        "forward for each edit",
    )
    figure = knock_figure(table, setup.name, len(setup.layers), args.window)
    return Findings(summary, [figure], {"rereading": table}, notes)


if __name__ == "__main__":
    main()
