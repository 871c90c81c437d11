"""Tokens in class embedding space: where the class appears, and which sublayers put it there.

Vilas, Schaumlöffel and Roig (NeurIPS 2023) project every token onto the classifier's class embeddings. They found that
patches become identifiable too, that attention and MLPs raise the true class in different blocks, that some value vectors
align with class embeddings, and that patches ranked by what they write into the CLS token matter most for the output.

Method, as their code defines it. Identifiability is 1 - rank / C of the true class, lens with the final norm. Change rates:
share of patches whose true-class logit rises over a block; share of tokens whose true-class logit in a sublayer's output,
normed on its own, exceeds that of the stream before the block. A randomly initialised twin is the control. Different from
their code: the share of tokens whose top class comes from neither sublayer nor the stream tests the MLP too (theirs tests
attention twice), and the relevance loss has one softmax (theirs has two). Ours: patches are left out by masking attention,
which equals dropping them; `gradient` is gradient times patch embedding; probes are fitted at evenly spaced tokens.

    python experiments/class_space.py zoo/vit --data zoo --out runs/class_space
"""

import pyarrow as pa
import torch

from clsinterp.figures.heatmaps import attention_figure
from clsinterp.probing.metrics import identifiability
from clsinterp.studies.causality.token_probes import probe_ranks, spread
from clsinterp.studies.class_space import reading as space
from clsinterp.studies.class_space.figure import class_space_figure
from clsinterp.studies.class_space.sweep import perturb
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, joined, pick


def by_block(setup: Setup, rows: Rows, control: str) -> torch.Tensor:
    """Identifiability, change rates and matches of every block; returns the ranks (layer, image, token)."""
    found = [space.read(setup, batch) for batch in setup.batches(setup.test, f"tokens, {control}")]
    rank, logit = joined((f.rank for f in found), 1), joined((f.logit for f in found), 1)
    added = joined((f.added for f in found), 2)
    parts = space.parts_of(setup)
    tokens = {"cls": slice(0, 1), "patches": slice(int("cls" in parts), None)}
    for layer in setup.layers:
        for part in parts:
            shown = rank[layer][:, tokens[part]]
            ident = identifiability(shown, setup.head.n_classes).mean(1)
            rows.mean(ident, curve=f"identifiability, {part}", layer=layer, control=control)
            for c, name in enumerate(space.COMPONENTS):
                rises = (added[c, layer] > logit[layer])[:, tokens[part]]
                rows.share(rises, curve=f"class similarity change, {name}, {part}", layer=layer, control=control)
        change = (logit[layer + 1] > logit[layer])[:, tokens["patches"]]
        rows.share(change, curve="identifiability change", layer=layer, control=control)
        for name in space.COMPONENTS:
            rows.mean(space.class_value_agreement(setup, layer, name), curve=f"class-value agreement, {name}", layer=layer,
                      control=control)  # fmt: skip
        for name in ("attn", "mlp", "before", "none"):
            match = torch.cat([space.matches(f)[name][layer] for f in found])
            rows.share(match, curve=f"top class as in {name}", layer=layer, control=control)
    return rank


def beside_probes(setup: Setup, rows: Rows, rank: torch.Tensor, n: int) -> None:
    """Probes of their own for `n` tokens at every layer, and the lens at the same tokens."""
    model, with_cls = setup.model, "cls" in space.parts_of(setup)
    places = spread(rank.shape[2], n)  # among the tokens that the lens reads: CLS, if there is one, and the patches
    cls = [model.layout.index("cls")] if with_cls else []
    read = cls + [model.layout.n_prefix + i for i in range(rank.shape[2] - len(cls))]
    probed = probe_ranks(setup, [read[p] for p in places])
    for layer in setup.layers:
        ident = identifiability(probed[layer], setup.n_classes).mean(0)
        rows.mean(ident, curve="per-token probe", layer=layer, control="trained")
        lens = identifiability(rank[layer][:, places], setup.head.n_classes).mean(1)
        rows.mean(lens, curve="lens at the same tokens", layer=layer, control="trained")


@study(options={"--tokens": {"type": int, "default": 12, "help": "tokens that get probes of their own"},
                "--perturbed": {"type": int, "default": 256, "help": "test images of the perturbations"}})  # fmt: skip
def main(setup: Setup, args) -> Findings:
    rows = Rows(**setup.facts())
    rank = by_block(setup, rows, "trained")
    by_block(setup.twin(), rows, "random twin")
    beside_probes(setup, rows, rank, args.tokens)
    areas = perturb(setup, rows, args.perturbed)
    table = rows.table()

    image, pixels = setup.test.image(0), setup.model.pixels(setup.test.image(0))
    grid = setup.model.patch_grid(pixels)
    maps = identifiability(rank[:, 0, int("cls" in space.parts_of(setup)) :], setup.head.n_classes).view(-1, *grid)
    name = setup.test.class_names[setup.test.labels[0]]
    heat = attention_figure(image, maps, [f"block {i}" for i in setup.layers], f"Identifiability of {name!r} by patch")
    shown = [r for r in pick(table, control="trained") if r["layer"] is not None]
    short = {"identifiability, cls": "CLS", "identifiability, patches": "patches", "identifiability change": "patches rise",
             "class similarity change, attn, patches": "attn raises", "class similarity change, mlp, patches": "MLP raises",
             "class-value agreement, attn": "attn values", "class-value agreement, mlp": "MLP values",
             "per-token probe": "probes", "lens at the same tokens": "lens there"}  # fmt: skip
    summary = [
        {"block": i, **{short[r["curve"]]: r["value"] for r in shown if r["layer"] == i and r["curve"] in short}}
        for i in setup.layers
    ]
    notes = ("area under accuracy by share of patches: " + ", ".join(f"{k} {v:.3f}" for k, v in areas.items()),)
    figures = [class_space_figure(table, setup), heat]
    return Findings(pa.Table.from_pylist(summary), figures, {"class_space": table}, notes)


if __name__ == "__main__":
    main()
