"""Tokens in class embedding space: where the class appears, and which sublayers put it there.

Vilas, Schaumlöffel and Roig (NeurIPS 2023) project every token onto the classifier's class embeddings. They found that
patches become identifiable too, that attention and MLPs raise the true class in different blocks, that some value vectors
align with class embeddings, and that patches ranked by what they write into the CLS token matter most for the output.

Method, as their code defines it. Identifiability is 1 - rank / C of the true class, lens with the final norm; its rate is the
share of tokens, and of images with a patch, at which the true class is on top. Change rates: share of patches whose
true-class logit rises over a block; share of tokens whose true-class logit in a sublayer's output, normed on its own, exceeds
that of the stream before the block. Sublayers as memories: the largest cosine of a class with a value vector; key-value
agreement, the share of tokens whose five most active memories hold one of the five closest to the image's class, beside
another class; and whether one of them is closest to the class that the sublayer's output names. Patches are left out by
relevance to the lens, by rank of the true class in probes of each patch and block, or by chance. A randomly initialised twin
is the control. Different from their code: the share of tokens whose top class comes from neither sublayer nor the stream
tests the MLP too (theirs tests attention twice), and the relevance loss has one softmax (theirs has two). Ours: patches are
left out by masking attention, which equals dropping them; `gradient` is gradient times patch embedding; probes are ridge.
Class and context tokens, which need masks, are in causality.py. Not covered: Chefer's relevance, and Wilcoxon tests against
the twin (intervals are drawn instead).

    python experiments/class_space.py zoo/vit --data zoo --out runs/class_space
"""

import pyarrow as pa
import torch

from clsinterp.figures.heatmaps import attention_figure
from clsinterp.probing.metrics import identifiability
from clsinterp.studies.causality.token_probes import probe_ranks, spread
from clsinterp.studies.class_space import reading as space
from clsinterp.studies.class_space.cuts import by_probes
from clsinterp.studies.class_space.figure import class_space_figure
from clsinterp.studies.class_space.memories import class_value_agreement, used
from clsinterp.studies.class_space.sweep import perturb
from clsinterp.studies.command import Findings, study
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows, joined, pick, wide

RAISES, KEYS, VALUES = "class similarity change", "key-value agreement", "class-value agreement"
SHORT = {"identifiability, cls": "CLS", "identifiability, patches": "patches", "identifiability rate, patches": "on top",
         f"{RAISES}, attn, patches": "attn raises", f"{RAISES}, mlp, patches": "MLP raises",
         f"{KEYS}, attn, patches": "attn keys", f"{KEYS}, mlp, patches": "MLP keys", f"{VALUES}, attn": "attn values",
         f"{VALUES}, mlp": "MLP values", "per-token probe": "probes", "lens at the same tokens": "lens there"}  # fmt: skip


def by_block(setup: Setup, rows: Rows, control: str) -> torch.Tensor:
    """Identifiability, change rates and matches of every block; returns the ranks (layer, image, token)."""
    found = [space.read(setup, batch) for batch in setup.batches(setup.test, f"tokens, {control}")]
    rank, logit = joined((f.rank for f in found), 1), joined((f.logit for f in found), 1)
    added, answer = (joined((getattr(f, x) for f in found), 2) for x in ("added", "answer_added"))
    memories = [used(setup, batch) for batch in setup.batches(setup.test, f"memories, {control}")]
    agrees, by_chance, named = (joined((getattr(m, x) for m in memories), 2) for x in ("agrees", "by_chance", "named"))
    parts = space.parts_of(setup)
    tokens = {"cls": slice(0, 1), "patches": slice(int("cls" in parts), None)}
    for layer in setup.layers:
        where = {"layer": layer, "control": control}
        for part in parts:
            at = tokens[part]
            ident = identifiability(rank[layer][:, at], setup.head.n_classes).mean(1)
            rows.mean(ident, curve=f"identifiability, {part}", **where)
            rows.share(rank[layer][:, at] == 0, curve=f"identifiability rate, {part}", **where)
            for c, name in enumerate(space.COMPONENTS):
                says = (named[c, layer] == answer[c, layer].unsqueeze(-1)).any(-1)
                hits = {RAISES: added[c, layer] > logit[layer], KEYS: agrees[c, layer], f"{KEYS} by chance": by_chance[c, layer],
                        "a top memory names the sublayer's class": says}  # fmt: skip
                for curve, hit in hits.items():
                    rows.share(hit[:, at], curve=f"{curve}, {name}, {part}", **where)
        rows.share((rank[layer][:, tokens["patches"]] == 0).any(1), curve="an identifiable patch", **where)
        change = (logit[layer + 1] > logit[layer])[:, tokens["patches"]]
        rows.share(change, curve="identifiability change", **where)
        for name in space.COMPONENTS:
            rows.mean(class_value_agreement(setup, layer, name), curve=f"{VALUES}, {name}", **where)
        for name in ("attn", "mlp", "before", "none"):
            match = torch.cat([space.matches(f)[name][layer] for f in found])
            rows.share(match, curve=f"top class as in {name}", **where)
    return rank


def beside_probes(setup: Setup, rows: Rows, rank: torch.Tensor, n: int) -> dict:
    """Probes of their own for `n` tokens at every layer, beside the lens; the order of patches by them, if all have one."""
    model, cls = setup.model, int("cls" in space.parts_of(setup))
    places = spread(rank.shape[2], n)  # among the tokens that the lens reads: CLS, if there is one, and the patches
    read = ([model.layout.index("cls")] if cls else []) + [
        model.layout.n_prefix + i for i in range(rank.shape[2] - cls)
    ]
    probed = probe_ranks(setup, [read[p] for p in places])
    for layer in setup.layers:
        ident = identifiability(probed[layer], setup.n_classes).mean(0)
        rows.mean(ident, curve="per-token probe", layer=layer, control="trained")
        lens = identifiability(rank[layer][:, places], setup.head.n_classes).mean(1)
        rows.mean(lens, curve="lens at the same tokens", layer=layer, control="trained")
    return {"probes": by_probes(probed[:, cls:])} if len(places) == rank.shape[2] else {}


@study(options={"--tokens": {"type": int, "default": 64, "help": "tokens that get probes of their own, 48 d^2 bytes each in each "
                                                                 "layer; patches are ordered by probes if all have one"},
                "--perturbed": {"type": int, "default": 256, "help": "test images of the perturbations"}})  # fmt: skip
def main(setup: Setup, args) -> Findings:
    rows = Rows(**setup.facts())
    rank = by_block(setup, rows, "trained")
    by_block(setup.twin(), rows, "random twin")
    areas = perturb(setup, rows, args.perturbed, beside_probes(setup, rows, rank, args.tokens))
    table = rows.table()

    image = setup.test.image(0)
    grid = setup.model.patch_grid(setup.model.pixels(image))
    maps = identifiability(rank[:, 0, int("cls" in space.parts_of(setup)) :], setup.head.n_classes).view(-1, *grid)
    title = f"Identifiability of {setup.test.class_names[setup.test.labels[0]]!r} by patch"
    heat = attention_figure(image, maps, [f"block {i}" for i in setup.layers], title)
    shown = [r for r in pick(table, control="trained") if r["layer"] is not None and r["curve"] in SHORT]
    there = {curve: short for curve, short in SHORT.items() if any(r["curve"] == curve for r in shown)}
    summary = wide(pa.Table.from_pylist(shown), "layer", "curve", list(there)).rename_columns(
        ["block", *there.values()]
    )
    note = "area under accuracy by share of patches: " + ", ".join(f"{k} {v:.3f}" for k, v in areas.items())
    return Findings(summary, [class_space_figure(table, setup), heat], {"class_space": table}, (note,))


if __name__ == "__main__":
    main()
