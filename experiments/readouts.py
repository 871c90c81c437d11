"""Read-outs from every layer with a fresh CLS token: how good, how alike, what their average buys.

The note of 2026-02-13 (lrast.github.io/science/2026/02/13/lab_notes.html) asks whether a ViT's patches can be read at
several depths: put a fresh CLS token into a block, let the block fill it from the patches, and probe what comes out.

Method. The CLS token that enters a block is replaced, for all images alike, by the mean CLS token there (`constant`), by
samples of the Gaussian fitted to the CLS tokens there (`gaussian`), or by a small MLP from noise, trained through the
frozen block together with a linear probe (`generator`, as in the note's code: the tokens that enter the block are detached
and its parameters frozen, and gradients pass through it into the MLP). In all cases, and for the intact token, a ridge probe
is then fitted on the CLS token that leaves the block. Agreement of read-outs: same answer, Spearman's correlation of their
scores, right or wrong together. Averages run from the last layer's read-out down, scores scaled to equal norm (ours).

    python experiments/readouts.py zoo/vit --data zoo --out runs/readouts
"""

import pyarrow as pa
import torch

from clsinterp.probing.streams import fit_ridge
from clsinterp.studies.command import Findings, study
from clsinterp.studies.readouts import agreement
from clsinterp.studies.readouts.figure import readouts_figure
from clsinterp.studies.readouts.fresh import Generators, Moments, constant, gaussian, through_next_block, train
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, joined, pick, wide
from clsinterp.sweeps.capture import capture

KINDS = ("intact", "constant", "gaussian", "generator")


@study(options={"--epochs": {"type": int, "default": 5, "help": "of the generators' training"}})
def main(setup: Setup, args) -> Findings:
    model, rows = setup.model, Rows(**setup.facts())
    entering = tuple(layer - 1 for layer in setup.layers)  # block l takes the CLS token that leaves layer l - 1
    moments = Moments()
    for batch in setup.batches(setup.train, "CLS tokens"):
        moments.update(capture(model, batch.pixels, entering)[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        generators = Generators(moments, entering, setup.n_classes)
    epochs = (setup.batches(setup.train, f"generators, epoch {e + 1}") for e in range(args.epochs))
    losses = train(generators, model, epochs, setup.seed)

    sources = {
        "constant": constant(moments, entering),
        "gaussian": gaussian(moments, entering),
        "generator": generators.sample,
    }

    def tokens(kind: str, batch, part: int) -> torch.Tensor:
        """CLS tokens after every block, (layer, batch, d_model), when what enters the block is of that kind."""
        if kind == "intact":
            return capture(model, batch.pixels, setup.layers)[0]
        draw = (setup.seed, part, batch.number)
        fresh = {i: sources[kind](i, len(batch), (*draw, i)) for i in entering}
        return torch.stack(list(through_next_block(model, batch, fresh).values()))

    labels = torch.tensor(setup.test.labels)
    scores: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        stream = ((tokens(kind, b, 0), b.labels) for b in setup.batches(setup.train, f"{kind}, train"))
        probes = fit_ridge(stream, setup.n_classes, n_folds=min(5, len(setup.train)))
        found = []
        for batch in setup.batches(setup.test, f"{kind}, test"):
            x = tokens(kind, batch, 1).cpu()
            found.append(torch.stack([probes.scores(x[i], i) for i in setup.layers]))
        scores[kind] = joined(found, dim=1)
    answers = [setup.outputs(b, [])[0].argmax(-1) == b.targets for b in setup.batches(setup.test, "output")]
    output = rows.share(torch.cat(answers), curve="output", layer=None)

    for kind, s in scores.items():
        for i in setup.layers:
            rows.share(s[i].argmax(-1) == labels, curve=kind, layer=i)
        for k, average in enumerate(agreement.averages(s), start=1):
            rows.share(average.argmax(-1) == labels, curve=f"average, {kind}", layer=None, averaged=k)
    table = rows.table()
    grids = {kind: agreement.compare(s, s.argmax(-1) == labels) for kind, s in scores.items()}
    alike = [
        {"kind": kind, "layer": i, "other": j, **{name: float(g[i, j]) for name, g in grid.items()}}
        for kind, grid in grids.items() for i in setup.layers for j in setup.layers if i < j
    ]  # fmt: skip
    best = {k: max(r["value"] for r in pick(table, curve=f"average, {k}")) for k in KINDS}
    notes = (f"output {output:.3f}; best average of the last k read-outs: "
             + ", ".join(f"{k} {v:.3f}" for k, v in best.items()),
             f"generators' loss by epoch: {', '.join(f'{x:.2f}' for x in losses)}")  # fmt: skip
    tables = {"readouts": table, "agreement": pa.Table.from_pylist(alike)}
    figure = readouts_figure(table, grids[KINDS[-1]], setup, KINDS)
    return Findings(wide(table, "layer", "curve", KINDS), [figure], tables, notes)


if __name__ == "__main__":
    main()
