"""Does the network write the label into the CLS token again after a shuffle?

The note of 2026-02-13 (lrast.github.io/science/2026/02/13/lab_notes.html) permuted the CLS tokens of one layer and probed
every layer with probes fitted on intact tokens: in a large ViT the probe right after the shuffle falls to chance, early
and late layers recover within a block or two, middle layers more slowly.

Method. Probes at layer j after CLS tokens were permuted at layer l <= j, with probes fitted on intact tokens (the note's)
and with probes fitted again on train tokens shuffled in the same way: a label that comes back in another format is found
by the second kind only. Then more than one shuffle, which is ours: the output after a shuffle at layer l alone, at the
three layers up to l, and at every layer up to l, each with permutations of its own.

    python experiments/restoration.py zoo/vit --data zoo --out runs/restoration

FINDINGS: on zoo/vit a swap at layer 0 is undone (the same probe reads 0.62 two blocks later, 0.86 at the end), one at
layer 5 is not (0.20 at the end). Probes fitted again find 0.67 there: the label does come back, in another format,
which the rest of the network does not read. Swaps at every layer up to 5 cost less (0.38 left) than one at layer 5
alone (0.21), perhaps because donors then contradict each other.
"""

from collections.abc import Iterator

import torch

from clsinterp.data.splits import Split
from clsinterp.interventions import permute
from clsinterp.probing.streams import fit_ridge
from clsinterp.studies.command import Findings, study
from clsinterp.studies.restoration.figure import restoration_figure
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.variants import INTACT, Edit, on, variants

FEW = 3  # layers of the short run of shuffles


def shuffled(setup: Setup, batch: Batch, layers: range, part: int) -> Edit:
    """An edit that permutes the CLS tokens at each of `layers`, a permutation for each."""
    where = setup.model.layout.index("cls")

    def at(layer: int):
        index = permute(len(batch), (setup.seed, part, batch.number, layer))
        return on(where, lambda cls: cls[index.to(cls.device)])

    return Edit({layer: at(layer) for layer in layers})


def tokens(setup: Setup, split: Split, part: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """CLS tokens (pair, batch, d_model) at layer j after a shuffle at l, for (intact, j), then (l, j) with l <= j."""
    for batch in setup.batches(split, ("train", "test")[part]):
        edits = [shuffled(setup, batch, range(j, j + 1), part) for j in setup.layers]
        seen = variants(setup.model, batch.pixels, edits, watched=setup.layers).tokens
        yield torch.stack([seen[j][k] for k, j in places(setup)]).cpu(), batch.labels


def places(setup: Setup) -> list[tuple[int, int]]:
    """(copy, probed layer); copy 0 is intact, copy l + 1 was shuffled at layer l."""
    return [(k, j) for k in range(len(setup.layers) + 1) for j in setup.layers if k == INTACT or k - 1 <= j]


@study()
def main(setup: Setup, args) -> Findings:
    layers, rows = setup.layers, Rows(**setup.facts())
    pairs = places(setup)
    probes = fit_ridge(tokens(setup, setup.train, 0), setup.n_classes, n_folds=min(5, len(setup.train)))
    right: dict[tuple, list] = {}
    for x, labels in tokens(setup, setup.test, 1):
        for p, (copy, j) in enumerate(pairs):
            for kind, probe in (("same probe", pairs.index((INTACT, j))), ("refitted probe", p)):
                right.setdefault((kind, copy, j), []).append(probes.scores(x[p], probe).argmax(-1) == labels)
    for (kind, copy, j), hits in right.items():
        if copy == INTACT and kind == "same probe":
            rows.share(torch.cat(hits), curve="no shuffle", layer=None, probed_layer=j)
        elif copy != INTACT:
            rows.share(torch.cat(hits), curve=kind, layer=copy - 1, probed_layer=j)

    sets = {"at l alone": 1, f"at the {FEW} layers up to l": FEW, "at every layer up to l": len(layers)}
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
    note = f"output intact {intact:.3f}, chance {1 / setup.n_classes:.3f}"
    figure = restoration_figure(table, setup, list(sets))
    return Findings(wide(table, "layer", "curve", list(sets)), [figure], {"restoration": table}, (note,))


if __name__ == "__main__":
    main()
