"""The label erased from the CLS token, linearly: what the output loses, and where the label comes back.

A swap puts another image's label in: it misleads. Here the label is only taken out. LEACE (Belrose et al. 2023, arXiv
2306.03819) is the affine map that leaves no affine reader anything on the training images and otherwise moves tokens least; the
sums that ridge probes stand on give it in closed form (`clsinterp.probing.leace`). By default its covariance has the penalty of
the layer's probe, so that the probe reads nothing from new images either; `--penalty none` is LEACE as published.

Method. At one layer l at a time the label is erased from the CLS tokens of test images, by an eraser fitted on train images,
and the rest of the model runs on. Output: `erased` (and `erased_cls_only`, the other read-outs held at their mean), beside a
swap (`shuffle`, the run's donors), the train mean in the token's place (`replaced_by_mean`: everything is missing) and as many
random directions erased (`erased_at_random`: what erasing costs where it takes nothing that matters). Paired on the same
images: `missing`, intact minus erased, and `misled`, erased minus swapped; `agreement` is with the intact answer. Readers: the
probe fitted on intact tokens (`intact_probe_after_erasure`) and a fresh one, fitted on erased train tokens
(`probe_after_erasure`), at l and at every j > l, for which the train images run once more under erasure. The floor is the most
frequent label; a label is back from the block on from which the fresh probe is above it (95%, paired), half back at the first
block at which it is half way to the intact probe. `leftover`: a probe fitted on half of the erased test tokens, read on the
other half: what erasers fitted on few images leave on new ones.

What LEACE leaves: all that no affine map reads. An output that does not fall may use the label in another form, or read it
again from patches, or never have used it. One that falls to `erased_at_random` lost variance, not the label.

    python experiments/erasure.py zoo/vit --data zoo --out runs/erasure
"""

import pyarrow as pa
import torch

from clsinterp.interventions import donors, swap
from clsinterp.runs.verdicts import FEWEST
from clsinterp.studies.command import Findings, study
from clsinterp.studies.erasure.erasers import Fitted, leftover
from clsinterp.studies.erasure.figure import OUTPUT, erasure_figure
from clsinterp.studies.restoration.floor import back_after
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, pick, wide
from clsinterp.sweeps.variants import INTACT, Edit, on, variants


def edits(setup: Setup, batch: Batch, fitted: Fitted) -> dict[tuple[str, int], Edit]:
    """(curve, layer) -> what happens to the CLS token; the erased copies first."""
    where = setup.model.layout.index("cls")
    swapped = swap(donors("permute", batch.labels, (setup.seed, batch.number)))
    changes = {
        "erased": fitted.erasers,
        "erased_at_random": fitted.controls,
        "replaced_by_mean": [lambda t, e=e: e.mean.expand_as(t).to(t) for e in fitted.erasers],
        "shuffle": [swapped] * len(setup.layers),
    }
    return {(name, i): Edit({i: on(where, by_layer[i])}) for name, by_layer in changes.items() for i in setup.layers}


@study(options={"--penalty": {"default": "probe", "choices": ["probe", "none"], "help": "of the erasers' covariance"}})
def main(setup: Setup, args) -> Findings:
    layers, head, alone = setup.layers, setup.head, bool(setup.model.family.other_readouts)
    fitted = Fitted.on_train(setup, args.penalty == "probe")
    places, fresh = fitted.fresh_probes(setup)
    answers: dict[tuple, list] = {}
    read: dict[tuple, list] = {}
    erased: list[torch.Tensor] = []
    labels, targets = torch.tensor(setup.test.labels), torch.tensor(setup.match.classes)[setup.test.labels]
    for batch in setup.batches(setup.test, "test"):
        runs = edits(setup, batch, fitted)
        found = variants(setup.model, batch.pixels, list(runs.values()), watched=layers)
        for k, key in enumerate([("intact", None), *runs]):
            logits = {"": head(found.readout[k])}
            if alone and key[0] in ("intact", "erased", "shuffle"):
                logits["_cls_only"] = head.only("cls", found.readout[k], fitted.readout)
            for suffix, values in logits.items():
                answers.setdefault((key[0] + suffix, key[1]), []).append(values.argmax(-1).cpu())
        for j in layers:
            read.setdefault(("probe", j, None), []).append(
                fitted.probes.scores(found.tokens[j][INTACT].cpu(), j).argmax(-1)
            )
        for p, (i, j) in enumerate(places):
            x = found.tokens[j][i + 1].cpu()
            read.setdefault(("probe_after_erasure", i, j), []).append(fresh.scores(x, p).argmax(-1))
            read.setdefault(("intact_probe_after_erasure", i, j), []).append(fitted.probes.scores(x, j).argmax(-1))
        erased.append(torch.stack([found.tokens[i][i + 1].cpu() for i in layers]))

    rows = Rows(**setup.facts())
    said = {key: torch.cat(parts) for key, parts in answers.items()}
    for (name, layer), answer in said.items():
        rows.share(answer == targets, curve=name, layer=layer, probed_layer=None)
    for suffix in ["", "_cls_only"] if alone else [""]:
        intact = said["intact" + suffix, None]
        for i in layers:
            out, swapped = said["erased" + suffix, i], said["shuffle" + suffix, i]
            rows.share(out == intact, curve=f"agreement{suffix}", layer=i)
            rows.mean((intact == targets).double() - (out == targets).double(), curve=f"missing{suffix}", layer=i)
            rows.mean((out == targets).double() - (swapped == targets).double(), curve=f"misled{suffix}", layer=i)
    hits = {key: torch.cat(parts) == labels for key, parts in read.items()}
    for (name, layer, probed), right in hits.items():
        rows.share(right, curve=name, layer=layer, probed_layer=probed)
    left = leftover(torch.cat(erased, dim=1), labels, setup.n_classes)
    for i in layers:
        rows.share(left[:, i], curve="leftover", layer=i)
    majority = labels == labels.bincount().argmax()
    rows.share(majority, curve="majority", layer=None)

    table = rows.table()
    after = {key[1:]: right for key, right in hits.items() if key[0] == "probe_after_erasure"}
    floor = float(majority.double().mean())
    share = {key: float(right.double().mean()) for key, right in hits.items()}
    half = [next((j - i for j in layers if j >= i and share["probe", j, None] > floor and share["probe_after_erasure", i, j]
                  >= (floor + share["probe", j, None]) / 2), None) for i in layers]  # fmt: skip
    summary = wide(table, "layer", "curve", [*OUTPUT, "missing", "misled", "probe", "leftover"])
    summary = summary.append_column(
        "back after", pa.array([back_after(after, i, majority) for i in layers], pa.int64())
    )
    summary = summary.append_column("half back after", pa.array(half, pa.int64()))
    (top,) = [r["value"] for r in pick(table, curve="intact")]
    note = (f"output intact {top:.3f}, most frequent label {floor:.3f}; back after: blocks since the erasure from which on a "
            f"fresh probe is above that (no verdict below {FEWEST} test images: {len(labels)})")  # fmt: skip
    return Findings(summary, [erasure_figure(table, setup)], {"erasure": table}, (note,))


if __name__ == "__main__":
    main()
