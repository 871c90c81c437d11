"""Causality is not decodability: which tokens a counting model uses, and which tell the count.

Huang and Chang (arXiv 2510.09794) fine-tuned ViTs to count objects and compared activation patching between clean and
corrupted images with linear probes: object tokens of middle layers have strong effects but are weakly decodable, those of
the last layers decode well and do nothing; the CLS token is decodable from middle layers and acts in the last ones only.

Method. Pairs of canvases with 2 to 6 garments and the same without one of them. At every layer the tokens of one group are
swapped within the pair, in both directions, and the output is read: share of outputs that turn to the donor's count, and
the logit of the donor's count minus that of the host's, scaled so that 0 is the host's run and 1 the donor's. Beside it the
accuracy of ridge probes for the count on the group's mean token in clean images. Covered of the paper: patching spatial and CLS
tokens between clean and corrupted images, and probes by depth. Not covered: its fine-tuned checkpoints and images, and its
look at attention. Ours, as its protocol beyond abstract and introduction could not be looked up: the canvases, the groups
(patches the removed object touches, patches only other objects touch, background), pairs where the model counts both images
right, and means of tokens for the probes.

Class and context tokens, of Vilas, Schaumlöffel and Roig (NeurIPS 2023), stand here because the canvases have masks: how
identifiable the count is (lens, as in class_space.py) at patches with objects and at the background of clean images, with a
one-sided permutation test of 300 draws, and what the output and the patches tell with either kind alone. Ours: patches change
places within their image (their code pools the patches of all images), and the class is a count, which no single patch shows.

    python experiments/causality.py zoo/counting --data zoo --out runs/causality
"""

import pyarrow as pa
import torch

from clsinterp.errors import RequestError
from clsinterp.studies.causality.context import context
from clsinterp.studies.causality.figure import CHANCE, context_figure, counting_figure
from clsinterp.studies.causality.setup import CountingSetup, partner
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Batch
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.patching import logit_difference
from clsinterp.sweeps.variants import INTACT, Edit


def swapped(mask: torch.Tensor, layer: int) -> Edit:
    """An edit in which the tokens in `mask` come from the other image of the pair."""
    index, where = partner(len(mask)), mask.unsqueeze(-1)
    return Edit({layer: lambda h: torch.where(where.to(h.device), h[index.to(h.device)], h)})


def effects(setup: CountingSetup, rows: Rows, keep_all: bool) -> tuple[int, int]:
    """What swaps do to the output; returns how many pairs were kept, and of how many."""
    turned: dict[tuple, list] = {}
    scaled: dict[tuple, list] = {}
    ends, kept = [], []
    for batch in setup.batches(setup.test, "swaps"):
        index = partner(len(batch))
        runs = {(group, layer): swapped(mask, layer) for group, mask in setup.masks(setup.test_pairs, batch).items()
                for layer in setup.layers}  # fmt: skip
        logits = setup.outputs(batch, list(runs.values()))
        right = logits[INTACT].argmax(-1) == batch.targets
        keep = torch.ones_like(right) if keep_all else right & right[index]
        donor = batch.targets[index]
        metric = logit_difference(donor, batch.targets)
        host = metric(logits[INTACT])
        # The donor's own run, read on the same scale: its partner's logits.
        ends.append((metric(logits[INTACT][index]) - host)[keep])
        kept.append(keep)
        for key, out in zip(runs, logits[1:], strict=True):
            turned.setdefault(key, []).append((out.argmax(-1) == donor)[keep])
            scaled.setdefault(key, []).append((metric(out) - host)[keep])
    n, total = int(torch.cat(kept).sum()), len(torch.cat(kept))
    if not n:
        raise RequestError(
            f"the model counts both images right in none of {total // 2} pairs; give --all-pairs to use them all."
        )
    removes = torch.cat([torch.arange(len(k)) % 2 == 0 for k in kept])[torch.cat(kept)]  # clean hosts lose an object
    for (group, layer), parts in turned.items():
        hits, effect = torch.cat(parts), torch.cat(scaled[group, layer]) / torch.cat(ends).mean()
        # The two directions of a pair are one draw: intervals are over pairs.
        ways = {"both": (hits.view(-1, 2), effect.view(-1, 2).mean(1)), "object removed": (hits[removes], effect[removes]),
                "object added": (hits[~removes], effect[~removes])}  # fmt: skip
        for direction, (turns, moves) in ways.items():
            where = {"group": group, "layer": layer, "direction": direction}
            rows.share(turns, curve="turns to the donor's count", **where)
            rows.mean(moves, curve="logit difference", **where)
    return n // 2, total // 2


def decodability(setup: CountingSetup, rows: Rows) -> None:
    """Accuracy of ridge probes for the count, on the mean token of every group in clean images."""

    def means(batch: Batch) -> torch.Tensor:
        return torch.stack(list(setup.group_means(setup.train_pairs, batch).values()))

    probes = setup.fit_on_train(means, "probes, train", every=2)
    found: dict[tuple, list] = {}
    for batch in setup.batches(setup.test, "probes, test"):
        for p, (key, x) in enumerate(setup.group_means(setup.test_pairs, batch).items()):
            found.setdefault(key, []).append(probes.scores(x, p).argmax(-1) == batch.labels[::2])
    for (group, layer), parts in found.items():
        rows.share(torch.cat(parts), curve="probe reads the count", group=group, layer=layer, direction=None)


@study(model="zoo/counting", opener=CountingSetup.open,
       options={"--all-pairs": {"action": "store_true", "help": "also pairs that the model counts wrong"}})  # fmt: skip
def main(setup: CountingSetup, args) -> Findings:
    rows = Rows(**setup.facts())
    kept, total = effects(setup, rows, args.all_pairs)
    decodability(setup, rows)
    context(setup, rows)
    table = rows.table()
    act = pick(table, curve="turns to the donor's count", direction="both")
    tell = [{**r, "group": f"{r['group']}: read"} for r in pick(table, curve="probe reads the count")]
    summary = wide(pa.Table.from_pylist(act + tell), "layer", "group")
    note = f"{kept} of {total} pairs used; count read by probes on clean images, chance {CHANCE}"
    return Findings(
        summary, [counting_figure(table, setup), context_figure(table, setup)], {"causality": table}, (note,)
    )


if __name__ == "__main__":
    main()
