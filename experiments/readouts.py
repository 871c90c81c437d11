"""Read-outs from every layer with a fresh CLS token: how good, how alike, what their average buys.

The note of 2026-02-13 (lrast.github.io/science/2026/02/13/lab_notes.html) asks whether a ViT's patches can be read at
several depths: put a fresh CLS token into a block, let the block fill it from the patches, and probe what comes out. Its code
went on to 2026-02-28 (github.com/lrast/CLSTokenAnalysis): a token put beside the CLS token, a learned constant, samples whose
mean answer is the model's own, and whether such samples are calibrated.

Method. The CLS token that enters a block is replaced, for all images alike, by the mean CLS token there (`constant`), by one
trained for it (`learned constant`), by samples of the Gaussian fitted to the CLS tokens there (`gaussian`), or by a small MLP
from noise (`generator`: his `replace`); or the MLP's token is put in front and the CLS token stays (`augment`). Training goes
through the frozen block, with a linear probe behind it. In all cases, and for the intact token (his `null`), a ridge probe is
then fitted on the token that leaves the block; he kept the trained one. Agreement of read-outs: same answer, Spearman's
correlation of their scores, right or wrong together. Averages run from the last layer's read-out down, scores scaled to equal
norm (ours). Calibration: `calibrated` is a generator of which 64 samples are drawn for an image, and the KL divergence of
their mean answer from the model's own distribution is the loss, at a temperature that falls from 1 to 0.1 over the training
(his by 1/4000 a step). On test images its samples are counted: expected calibration error of the counts and of the mean
answer (10 bins, Guo et al. 2017) beside the model's, the share of samples that say what the model says, and that share by
entropy of the counts. It is left out where the classifier is a ridge fit, whose scores are no probabilities. His numbers for
layers 8 to 11 are drawn where the model is his.

    python experiments/readouts.py zoo/vit --data zoo --out runs/readouts
"""

import pyarrow as pa
import torch

from clsinterp.figures.note import published_curves
from clsinterp.studies.command import Findings, study
from clsinterp.studies.readouts import agreement
from clsinterp.studies.readouts.calibration import measure
from clsinterp.studies.readouts.figure import KINDS, calibration_figure, readouts_figure
from clsinterp.studies.readouts.fresh import Moments, constant, gaussian
from clsinterp.studies.readouts.learned import answers, learn, through_next_block
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, joined, pick, wide
from clsinterp.sweeps.capture import capture

HIS = {"intact": "null", "generator": "replace", "augment": "augment"}  # names in the note's code


@study(options={"--epochs": {"type": int, "default": 5, "help": "of the training of tokens"},
                "--samples": {"type": int, "default": 50, "help": "tokens drawn for a test image"}})  # fmt: skip
def main(setup: Setup, args) -> Findings:
    model, rows = setup.model, Rows(**setup.facts())
    entering = tuple(layer - 1 for layer in setup.layers)  # block l takes the CLS token that leaves layer l - 1
    moments = Moments()
    for batch in setup.batches(setup.train, "CLS tokens"):
        moments.update(capture(model, batch.pixels, entering)[0])
    learned, losses = learn(setup, moments, entering, args.epochs)
    sources = {"constant": constant(moments, entering), "gaussian": gaussian(moments, entering)}
    sources |= {kind: one.sample for kind, one in learned.items()}

    def tokens(kind: str, batch, part: int) -> torch.Tensor:
        """Tokens after every block, (layer, batch, d_model), when what enters the block is of that kind."""
        if kind == "intact":
            return capture(model, batch.pixels, setup.layers)[0]
        fresh = {i: sources[kind](i, len(batch), (setup.seed, part, batch.number, i)) for i in entering}
        return torch.stack(list(through_next_block(setup, batch, fresh, augment=kind == "augment").values()))

    labels = torch.tensor(setup.test.labels)
    scores: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        probes = setup.fit_on_train(lambda b, kind=kind: tokens(kind, b, 0), f"{kind}, train")
        found = []
        for batch in setup.batches(setup.test, f"{kind}, test"):
            x = tokens(kind, batch, 1).cpu()
            found.append(torch.stack([probes.scores(x[i], i) for i in setup.layers]))
        scores[kind] = joined(found, dim=1)
    own = [setup.outputs(b, [])[0].argmax(-1) == b.targets for b in setup.batches(setup.test, "output")]
    output = rows.share(torch.cat(own), curve="output", layer=None)
    for kind, s in scores.items():
        for i in setup.layers:
            rows.share(s[i].argmax(-1) == labels, curve=kind, layer=i)
        for k, average in enumerate(agreement.averages(s), start=1):
            rows.share(average.argmax(-1) == labels, curve=f"average, {kind}", layer=None, averaged=k)
    if setup.name == published_curves()["checkpoints"]["vit"]:
        his = published_curves()["follow_up"]
        for kind, name in HIS.items():
            for layer, value in zip(his["layers"], his[name], strict=True):
                rows.add(value, curve=f"published, {kind}", layer=layer)
    figures, notes = (
        [],
        [f"loss by epoch, {kind}: {', '.join(f'{x:.2f}' for x in found)}" for kind, found in losses.items()],
    )
    if "calibrated" in learned:
        parts = ((*answers(learned["calibrated"], setup, b, args.samples), b.targets) for b in
                 setup.batches(setup.test, "calibration"))  # fmt: skip
        measure(rows, parts)
        figures.append(calibration_figure(rows.table(), setup, args.samples))
    table = rows.table()
    grids = {kind: agreement.compare(s, s.argmax(-1) == labels) for kind, s in scores.items()}
    alike = [
        {"kind": kind, "layer": i, "other": j, **{name: float(g[i, j]) for name, g in grid.items()}}
        for kind, grid in grids.items() for i in setup.layers for j in setup.layers if i < j
    ]  # fmt: skip
    best = {k: max(r["value"] for r in pick(table, curve=f"average, {k}")) for k in KINDS}
    said = f"output {output:.3f}; best average of the last k read-outs: " + ", ".join(
        f"{k} {v:.3f}" for k, v in best.items()
    )
    tables = {"readouts": table, "agreement": pa.Table.from_pylist(alike)}
    figures.insert(0, readouts_figure(*tables.values(), setup))
    return Findings(wide(table, "layer", "curve", KINDS), figures, tables, (said, *notes))


if __name__ == "__main__":
    main()
