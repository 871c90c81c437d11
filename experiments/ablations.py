"""Kinds of ablation side by side: permuted, deranged, cross-label, mean, zero and noise.

Setting activations to zero is known to overstate how much a model depends on them (arXiv 2604.14433): zeros are far from
anything the next block has seen, so what is measured is damage, not only the loss of what the token said.

Method. At every layer, the CLS token (and the register tokens, where a family has them) is replaced: by another image's
(permuted, deranged, or from an image of another label), by the batch mean, by zeros, by Gaussian noise with the batch's
mean and deviation. All replacements of a batch ride in one forward. What a mean leaves and a permutation destroys is
misinformation; what a mean destroys is the information; what zeros destroy beyond that is the token itself.

    python experiments/ablations.py zoo/vit --data zoo --out runs/ablations
"""

import torch

from clsinterp.errors import RequestError
from clsinterp.interventions import SWAPS, donors, mean, noise, swap, zero
from clsinterp.studies.ablations.figure import NAMES, ablations_figure, mean_loss
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, one, wide
from clsinterp.sweeps.variants import Edit, on


def kinds(setup: Setup, batch: Batch) -> dict:
    """Name -> function of the tokens, drawn once per batch and shared by all layers."""
    seed = (setup.seed, batch.number)
    swaps = {mode: swap(donors(mode, batch.labels, seed)) for mode in SWAPS}
    return {**swaps, "mean": mean, "zero": zero, "noise": noise(seed)}


@study()
def main(setup: Setup, args) -> Findings:
    groups = [group for group in NAMES if group in setup.model.layout.slices]
    if not groups:
        raise RequestError(f"a {setup.model.family.name} model has neither CLS nor register tokens to ablate.")
    hits: dict[tuple, list] = {}
    for batch in setup.batches(setup.test, "test"):
        runs = {
            (group, name, layer): Edit({layer: on(setup.model.layout.index(group), change)})
            for group in groups
            for name, change in kinds(setup, batch).items()
            for layer in setup.layers
        }
        logits = setup.outputs(batch, list(runs.values()))
        for key, answer in zip([(None, "intact", None), *runs], logits.argmax(-1), strict=True):
            hits.setdefault(key, []).append(answer == batch.targets)
    rows = Rows(**setup.facts())
    for (group, name, layer), found in hits.items():
        rows.share(torch.cat(found), group=group, curve=name, layer=layer)
    table = rows.table()

    intact = one(table, curve="intact")["value"]
    lost = mean_loss(table, groups[0])
    note = f"intact {intact:.3f}; mean loss of accuracy over layers: " + ", ".join(
        f"{k} {v:.3f}" for k, v in lost.items()
    )
    summary = wide(table.filter([g == groups[0] for g in table["group"].to_pylist()]), "layer", "curve", list(lost))
    return Findings(summary, [ablations_figure(table, setup)], {"ablations": table}, (note,))


if __name__ == "__main__":
    main()
