"""The note: where the label can be read from the CLS token, and where the output depends on it.

The note of 2026-01-20 (lrast.github.io/science/2026/01/20/lab_notes.html) found, in five large checkpoints, that a linear
probe reads the label from the CLS token of early layers already, while the output hardly changes when CLS tokens are
permuted between images there: what is available is not what is used.

Method. Ridge probes on the raw CLS token after every block, fitted on the train images. Then, for each batch of test
images, one forward in which a copy of the batch leaves the intact rows at every layer with permuted CLS tokens; each row
is scored by the model's output, the CLS part of the output alone, the logit lens and the probes. This is `clsinterp run`
written out, for those who want to change it; the numbers are the same.

    python experiments/note.py zoo/vit --data zoo --out runs/note
"""

import pyarrow as pa
import torch

from clsinterp.figures.facts import Facts
from clsinterp.figures.note import study_figures
from clsinterp.interventions import collision_rate, donors
from clsinterp.runs.results import curves_table
from clsinterp.runs.verdicts import verdicts
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Setup
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers


@study(options={"--mode": {"default": "permute", "choices": ["permute", "derange", "cross_label"]}})
def main(setup: Setup, args) -> Findings:
    model, layers = setup.model, setup.layers

    # Availability: one ridge probe per layer, from sums that stream over the train images.
    probes, mean = setup.read_train()
    # CLS read alone: the other read-outs are held at their mean over the train images.
    readers = Readers(setup.head, rest=mean, probes=probes, probed=layers)

    # Use: permute the CLS tokens of a batch at one layer, for all layers in one forward.
    parts, start = [], 0
    for batch in setup.batches(setup.test, "test"):
        donor = donors(args.mode, batch.labels, (setup.seed, batch.number))
        ranks = fork(model, batch.pixels, batch.targets, donor, readers, layers=layers, labels=batch.labels)
        parts.append(
            {"index": torch.arange(start, start + len(batch)), "label": batch.labels, "donor": donor + start, **ranks}
        )
        start += len(batch)
    images = pa.table({name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})

    # Every curve follows from the rank of the true label.
    floors = verdicts(images, setup.match.classes).floors
    held = "alone" if model.family.averages_heads else "mean" if model.family.other_readouts else None
    facts = Facts(
        model=setup.name, family=model.family.name, n_layers=model.n_layers, n_classes=setup.head.n_classes,
        n_labels=setup.n_classes, seed=setup.seed, mode=args.mode, final_norm=True if model.lens_norm else None,
        data=args.data, head=setup.match.how, cls_only=held, floors=floors,
    )  # fmt: skip
    curves = curves_table(images, facts)
    points = [r for r in curves.to_pylist() if r["metric"] == "accuracy" and r["probed_layer"] is None]
    value = {(r["curve"], r["layer"]): r["value"] for r in points}
    shown = [c for c in ("probe", "shuffle", "shuffle_cls_only", "donor", "lens") if (c, 0) in value]
    summary = pa.Table.from_pylist([{"layer": j, **{c: value[c, j] for c in shown}} for j in layers])
    same = collision_rate(torch.cat([p["label"] for p in parts]), torch.cat([p["donor"] for p in parts]))
    note = f"intact {value['intact', None]:.3f}, floor {floors['use']:.3f}, donor of the same label {same:.3f}"
    return Findings(summary, study_figures([(facts, curves)]), {"curves": curves, "images": images}, (note,))


if __name__ == "__main__":
    main()
