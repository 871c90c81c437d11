"""Whom does the output follow after a CLS swap: availability against use as one number per model.

New here; it takes the note of 2026-01-20 one step further. After a swap the CLS token says one label (the donor's) and
the patches another (the host's). Accuracy alone tells when the host's label is lost, not whether the donor's was used.

Method. Every test image gets, at one layer at a time, the CLS token of an image of another label (`cross_label`). Of the
tokens handed over: how many does a ridge probe read the donor's label from (availability), for how many does the output
name the donor's label (use), for how many still the host's. The gap is the area between availability and use, averaged
over depth, each without chance hits: (share - chance) / (1 - chance), where chance is what the same answers would hit had
donors been handed round among images of one label. It is 0 if all that can be read is used, or nothing can be read; 1 if
everything can be read everywhere and nothing is used; below 0 if the output takes more than a linear probe reads. The
crossing is the layer from which on the output follows the donor rather than the host. Intervals: bootstrap over images,
each with its donor. Use is also given for every single read-out of the classifier, and by how confusable the two classes
are for the intact model.

    python experiments/donors.py zoo/vit zoo/deit zoo/beit zoo/dinov2 zoo/clip --data zoo --out runs/donors
"""

import pyarrow as pa
import torch

from clsinterp.interventions import donors, swap
from clsinterp.studies.command import Findings, study
from clsinterp.studies.donors.donor import Followed, confusability, numbers, thirds
from clsinterp.studies.donors.figure import confusability_figure, gap_figure
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows
from clsinterp.sweeps.variants import INTACT, Edit, on, variants

THIRDS = ("distinct", "middling", "confusable")


def measure(setup: Setup, mode: str) -> tuple[pa.Table, dict]:
    """Curves of one model, and its two numbers."""
    model, head, layers = setup.model, setup.head, setup.layers
    where = model.layout.index("cls")
    probes, mean = setup.read_train(f"{setup.name}, probes")
    # A read-out alone: the others are held at their mean over the train images (DeiT's heads are apart as they are).
    alone = head.readouts if len(head.readouts) > 1 else ()
    readers = {"output": head} | {f"{r} alone": lambda x, r=r: head.only(r, x, mean) for r in alone}
    classes = torch.tensor(setup.match.classes)
    read, intact, host, donor = [], [], [], []
    answers: dict[str, list] = {name: [] for name in readers}
    for batch in setup.batches(setup.test, f"{setup.name}, swaps"):
        index = donors(mode, batch.labels, (setup.seed, batch.number))
        edits = [Edit({layer: on(where, swap(index))}) for layer in layers]
        found = variants(model, batch.pixels, edits, watched=layers)
        for name, reader in readers.items():
            answers[name].append(
                torch.stack([reader(found.readout[k]).argmax(-1).cpu() for k in range(1, len(layers) + 1)])
            )
        tokens = [found.tokens[layer][INTACT].cpu()[index] for layer in layers]
        read.append(classes[torch.stack([probes.scores(x, i).argmax(-1) for i, x in enumerate(tokens)])])
        intact.append(head(found.readout[INTACT]).cpu())
        host.append(batch.targets)
        donor.append(batch.targets[index])
    own, other, logits = torch.cat(host), torch.cat(donor), torch.cat(intact)
    named = {name: torch.cat(parts, dim=1).mT for name, parts in answers.items()}
    followed = Followed(own, other, named["output"], torch.cat(read, dim=1).mT)
    used, available = (followed.by_chance(answer).mean(0).tolist() for answer in (followed.output, followed.probe))

    right = logits.argmax(-1) == own
    rows = Rows(**setup.facts())
    rows.share(right, curve="intact", readout="output", layer=None)
    for name, answer in named.items():
        for layer in layers:
            rows.share(answer[:, layer] == own, curve="host", readout=name, layer=layer)
            rows.share(answer[:, layer] == other, curve="use", readout=name, layer=layer)
    for layer in layers:
        rows.share(followed.read[:, layer], curve="availability", readout="probe", layer=layer)
        rows.add(available[layer], n=len(own), curve="availability by chance", readout="probe", layer=layer)
        rows.add(used[layer], n=len(own), curve="use by chance", readout="output", layer=layer)
    kind = thirds(confusability(logits, own)[own, other])
    for t, name in enumerate(THIRDS):
        for layer in layers:
            chosen = kind == t
            for curve, hits in (("use", followed.donor), ("host", followed.host)):
                rows.share(hits[chosen, layer], curve=curve, readout="output", layer=layer, pairs=name)
    sums = numbers(followed, setup.seed)
    for name, found in (("gap", sums.gap), ("crossing", sums.crossing)):
        if found.exists >= 0.5:  # what most draws do not have is not there
            rows.add(found.value, found.low, found.high, len(own), curve=name, readout="output", layer=None)
    facts = {**setup.facts(), "n_layers": len(layers), "n": len(own), "chance": 1 / setup.n_classes,
             "intact": float(right.double().mean()), "gap": sums.gap, "crossing": sums.crossing}  # fmt: skip
    return rows.table(), facts


@study(several=True, options={"--mode": {"default": "cross_label", "choices": ["cross_label", "derange", "permute"]}})
def main(setups, args) -> Findings:
    tables, models = zip(*(measure(setup, args.mode) for setup in setups), strict=True)
    table = pa.concat_tables(tables, promote_options="default")
    summary = pa.Table.from_pylist(
        [
            {"model": m["model"], "family": m["family"], "intact": m["intact"], "gap [95%]": str(m["gap"]),
             "follows the donor from layer [95%]": str(m["crossing"]), "crosses in": f"{m['crossing'].exists:.0%} of draws"}
            for m in models
        ]
    )  # fmt: skip
    figures = [gap_figure(table, models), confusability_figure(table, models, THIRDS)]
    return Findings(summary, figures, {"donors": table})


if __name__ == "__main__":
    main()
