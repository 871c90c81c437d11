"""Is what is read what is used? The CLS token swapped in part, inside and outside of what a probe reads.

A probe at layer l reads the label from C - 1 directions of the CLS token; a swap of the whole token shows whether the output
uses any of its directions. Here only a part is swapped, x + Q (donor - x), which asks whether they are the same ones.

Method. Donors are those of a run with the same seed. Q is, layer by layer: the orthogonal projector, in token space as it is,
onto the row space of the ridge probe (`swap_probe_subspace`) or onto everything else (`swap_complement`); the oblique
projector that LEACE erases with (`swap_leace`, same rank: it reads what the probe reads, but moves tokens along the differences
of the class means); the orthogonal projector onto a random subspace of that rank (`swap_random_subspace`, drawn 20 times).
Measured: how often the output names the donor's label, the image's own, and the intact answer.

The smallest used subspace. Directions are ordered by the generalised eigenproblem of the covariance between class means
against the tokens' (with the probe's penalty; the same order as against the covariance within classes); what else there is
follows by variance. The swap of the first n is kept to them under two inner products: `plain`, whose first C - 1 are the
probe's row space, and `whitened`, whose first C - 1 are LEACE's component (`clsinterp.studies.subspace.bases`). An image's gain
is 1 where the output comes to name the donor's label, -1 where it ceases to. r(l) is the first rank of a ladder (1 to 8, then
12, 16, 24, ..) with 95% of the full swap's mean gain, chosen on every other image; its share on the images in between stands
beside it, with a bootstrap interval. Gains need not rise with the rank; ranks above r(l) that fall below again are counted
(`dips`). There is no r(l) below 100 images to choose on, or where the full swap turns fewer than 20 of them, or no more than it
turns back (95%). It is an upper bound: directions in another order might do with fewer.

    python experiments/subspace.py zoo/vit --data zoo --out runs/subspace
"""

import pyarrow as pa
import torch

from clsinterp.interventions import SWAPS, donors
from clsinterp.probing.ridge import solve
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Setup
from clsinterp.studies.subspace.bases import PLAIN, WHITENED, Directions
from clsinterp.studies.subspace.figure import CURVES, subspace_figure
from clsinterp.studies.subspace.swaps import of_all, of_half, of_ranks
from clsinterp.studies.subspace.used import refusal, share, smallest
from clsinterp.studies.tidy import Rows, pick, wide

INNER = (PLAIN, WHITENED)
OPTIONS = {
    "--mode": {"default": "permute", "choices": list(SWAPS), "help": "how donors are drawn"},
    "--draws": {"type": int, "default": 20, "help": "random subspaces per layer"},
}


@study(options=OPTIONS)
def main(setup: Setup, args) -> Findings:
    layers, rows = setup.layers, Rows(**setup.facts())
    stats, _ = setup.train_statistics("probes")
    directions = [Directions.of(stats, i, float(alpha)) for i, alpha in enumerate(solve(stats).alpha)]
    labels = torch.tensor(setup.test.labels)
    index = torch.cat([i * setup.batch_size + donors(args.mode, y, (setup.seed, i))
                       for i, y in enumerate(labels.split(setup.batch_size))])  # fmt: skip
    own = torch.tensor(setup.match.classes)[labels]
    other = own[index]

    said = of_all(setup, directions, args.mode, args.draws)
    intact = said["intact", None, None]
    shown = {"accuracy": lambda x: x == own, "donor": lambda x: x == other, "agreement": lambda x: x == intact}
    for measure, hit in shown.items():
        for (name, layer, draw), answer in said.items():
            rows.share(hit(answer), curve=name, measure=measure, layer=layer, draw=draw, rank=None)
        for i in layers if args.draws else ():
            drawn = torch.stack([hit(said["swap_random_subspace", i, k]) for k in range(args.draws)], dim=1)
            rows.share(drawn, curve="swap_random_subspace", measure=measure, layer=i, draw=None, rank=None)

    def gain(answer: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (answer == other[at]).double() - (intact[at] == other[at]).double()

    choose, report = of_half(setup, 0), of_half(setup, 1)
    full = {i: gain(said["shuffle", i, None][choose], choose) for i in layers}
    tried = {i: [(n, inner) for inner in INNER for n in directions[i].ladder()] for i in layers if not refusal(full[i])}
    partial = of_ranks(setup, directions, args.mode, 0, tried)
    used, reasons = {}, {}
    for i in layers:
        rows.add(directions[i].rank, n=len(setup.train), curve="row_space_rank", layer=i)
        reasons.setdefault(refusal(full[i]), []).append(i)
        for inner in INNER:
            steps = {n: gain(partial[i, n, inner], choose) for n, kind in tried.get(i, ()) if kind == inner}
            used[i, inner] = one = smallest(steps, full[i], setup.model.d_model)
            where = {"layer": i, "inner": inner}
            for n, found in steps.items():
                rows.add(float(found.mean() / full[i].mean()), n=len(choose), curve="effect_share", rank=n, **where)
            rows.add(one.rank, n=len(choose), curve="used_rank", reason=one.reason, **where)
            rows.add(len(one.dips), n=len(choose), curve="dips", **where)
    chosen = {i: [(used[i, inner].rank, inner) for inner in INNER] for i in tried}
    for (i, n, inner), answer in of_ranks(setup, directions, args.mode, 1, chosen).items():
        found = share(gain(answer, report), gain(said["shuffle", i, None][report], report), setup.seed)
        rows.add(found.value, found.low, found.high, len(report), curve="used_share", layer=i, rank=n, inner=inner)

    table = rows.table()
    rates = table.filter([m == "donor" and d is None for m, d in zip(*(table[c].to_pylist() for c in ("measure", "draw")),
                                                                     strict=True)])  # fmt: skip
    summary = wide(rates, "layer", "curve", list(CURVES))
    summary = summary.append_column("C - 1", pa.array([d.rank for d in directions], pa.int64()))
    for inner in INNER:
        held = {r["layer"]: r["value"] for r in pick(table, curve="used_share", inner=inner)}
        summary = summary.append_column(f"r(l), {inner}", pa.array([used[i, inner].rank for i in layers], pa.int64()))
        summary = summary.append_column("held out, " + inner, pa.array([held.get(i) for i in layers], pa.float64()))
    notes = [f"shares of {len(labels)} test images whose output names the donor's label; nothing swapped: "
             f"{float((intact == other).double().mean()):.3f}"]  # fmt: skip
    notes += [f"no r(l) at layer {', '.join(map(str, at))}: {why}" for why, at in reasons.items() if why]
    return Findings(summary, [subspace_figure(table, setup)], {"subspace": table}, tuple(notes))


if __name__ == "__main__":
    main()
