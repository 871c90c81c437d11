"""Does the network write the label into the CLS token again after a swap?

The note of 2026-02-13 (lrast.github.io/science/2026/02/13/lab_notes.html) permuted the CLS tokens of one layer and probed
every layer after it (ViT-B on tiny-imagenet). Its probes were fitted after the swap (which it calls a shuffle): the hook that
swaps is in place while tokens are collected for training and for testing ("the decoders are trained on post-randomization
data"). There the probe right after the swap falls to chance, early and late layers recover within a block or two, middle layers
more slowly.

Method. Probes at layer j after CLS tokens were permuted at layer l <= j: fitted again on train tokens swapped in the same way
(the note's, `refitted probe`), and fitted on intact tokens (ours, `same probe`): a label that comes back in another format is
found by the first kind only. The floor is the share of images whose donor has their own label: they lose nothing in the
swap. A label is back from the block on from which a probe is right more often than that, on the same images, beyond a 95%
interval of the difference. Then more than one swap, which is ours: the output after a swap at layer l alone, at the
three layers up to l, and at every layer up to l, each with permutations of its own.

    python experiments/restoration.py zoo/vit --data zoo --out runs/restoration
"""

import pyarrow as pa
import torch

from clsinterp.interventions import permute, swap
from clsinterp.runs.verdicts import FEWEST
from clsinterp.studies.command import Findings, study
from clsinterp.studies.restoration.figure import FEW, SETS, restoration_figure
from clsinterp.studies.restoration.floor import FLOOR, back_after
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.variants import INTACT, Edit, on, variants


def shuffled(setup: Setup, batch: Batch, layers: range, part: int) -> Edit:
    """An edit that permutes the CLS tokens at each of `layers`, a permutation for each."""
    where = setup.model.layout.index("cls")
    index = {layer: donors(setup, len(batch), part, batch.number, layer) for layer in layers}
    return Edit({layer: on(where, swap(i)) for layer, i in index.items()})


def donors(setup: Setup, n: int, part: int, number: int, layer: int) -> torch.Tensor:
    """Whose CLS token each image of batch `number` gets at `layer`; part 0 is the train split, 1 the test split."""
    return permute(n, (setup.seed, part, number, layer))


def collisions(setup: Setup) -> dict[int, torch.Tensor]:
    """For each layer and test image, whether its donor has its own label."""
    batches = torch.tensor(setup.test.labels).split(setup.batch_size)
    return {
        layer: torch.cat([y[donors(setup, len(y), 1, b, layer)] == y for b, y in enumerate(batches)])
        for layer in setup.layers
    }


def tokens(setup: Setup, batch: Batch, part: int) -> torch.Tensor:
    """CLS tokens (pair, batch, d_model) at layer j after a swap at l, for (intact, j), then (l, j) with l <= j."""
    edits = [shuffled(setup, batch, range(j, j + 1), part) for j in setup.layers]
    seen = variants(setup.model, batch.pixels, edits, watched=setup.layers).tokens
    return torch.stack([seen[j][k] for k, j in places(setup)]).cpu()


def places(setup: Setup) -> list[tuple[int, int]]:
    """(copy, probed layer); copy 0 is intact, copy l + 1 was swapped at layer l."""
    return [(k, j) for k in range(len(setup.layers) + 1) for j in setup.layers if k == INTACT or k - 1 <= j]


@study()
def main(setup: Setup, args) -> Findings:
    layers, rows = setup.layers, Rows(**setup.facts())
    pairs = places(setup)
    probes = setup.fit_on_train(lambda batch: tokens(setup, batch, 0), "train")
    right: dict[tuple, list] = {}
    for batch in setup.batches(setup.test, "test"):
        x = tokens(setup, batch, 1)
        for p, (copy, j) in enumerate(pairs):
            for kind, probe in (("same probe", pairs.index((INTACT, j))), ("refitted probe", p)):
                right.setdefault((kind, copy, j), []).append(probes.scores(x[p], probe).argmax(-1) == batch.labels)
    floor = collisions(setup)
    for layer, hits in floor.items():
        rows.share(hits, curve=FLOOR, layer=layer, probed_layer=None)
    shown: dict[str, dict[tuple[int, int], torch.Tensor]] = {"same probe": {}, "refitted probe": {}}
    for (kind, copy, j), parts in right.items():
        hits = torch.cat(parts)
        if copy == INTACT and kind == "same probe":
            rows.share(hits, curve="no shuffle", layer=None, probed_layer=j)
        elif copy != INTACT:
            rows.share(hits, curve=kind, layer=copy - 1, probed_layer=j)
            shown[kind][copy - 1, j] = hits

    sets = dict(zip(SETS, (1, FEW, len(layers)), strict=True))
    runs = [(name, last, range(max(0, last + 1 - n), last + 1)) for name, n in sets.items() for last in layers]
    after: dict[tuple, list] = {}
    for batch in setup.batches(setup.test, "several layers"):
        logits = setup.outputs(batch, [shuffled(setup, batch, where, 1) for _, _, where in runs])
        for name, answer in zip([("output", None), *[r[:2] for r in runs]], logits.argmax(-1), strict=True):
            after.setdefault(name, []).append(answer == batch.targets)
    for (name, last), hits in after.items():
        rows.share(torch.cat(hits), curve=name, layer=last, probed_layer=None)
    table = rows.table()
    (intact,) = [r["value"] for r in pick(table, curve="output")]
    summary = wide(table, "layer", "curve", [FLOOR, *sets])
    for kind, cells in shown.items():
        back = [back_after(cells, layer, floor[layer]) for layer in layers]
        summary = summary.append_column(f"{kind} back after", pa.array(back, pa.int64()))
    note = (f"output intact {intact:.3f}; back after: blocks since the swap from which on the probe is right more often than "
            f"donors have the same label (no verdict below {FEWEST} test images: {len(setup.test)})")  # fmt: skip
    figure = restoration_figure(table, setup)
    return Findings(summary, [figure], {"restoration": table}, (note,))


if __name__ == "__main__":
    main()
