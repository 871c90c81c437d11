"""How low-frequency is the CLS token, and is its learned embedding tied to the source data?

Zou, Yi, Li and Li (NeurIPS 2024) found that a randomly initialised CLS embedding serves few-shot learning in another domain
better than the trained one, and explain it by the CLS token taking up domain information, which they see as the
low-frequency part of images.

Method. Tokens of an image against those of its low-pass, high-pass and band-pass versions, by layer: cosine similarity of
the CLS token and of the mean patch. Between images whose amplitude below a cut-off was exchanged (phases stay): similarity
to the image and to the donor of the amplitude. Accuracy on filtered images of probes fitted on intact ones. Then the CLS
token that enters block 0 replaced by noise of the same norm, with a head refitted on train images under the same
replacement, on test images as they are, inverted, blurred and noised. Sharp radial
cut-offs in shares of Nyquist, tokens centred on the train mean, and these shifts are ours: their filters are not in their code.

Covered of the paper: the random CLS token, for a model as it was trained and with a head fitted on all train images, and the
low-frequency part. Not covered, as their code (github.com/Zoilsen/CLS_Token_CDFSL) has it: few-shot episodes, in which class
means of a few images classify four other datasets; training on the source with a domain token for each of 64 clusters of
classes, added to the CLS token and kept orthogonal to it; and adapting the CLS token on the target.

    python experiments/frequency.py zoo/vit --data zoo --out runs/frequency
"""

import torch
from torch.nn.functional import cosine_similarity

from clsinterp.interventions import derange, generator
from clsinterp.probing.streams import fit_head
from clsinterp.studies.command import Findings, study
from clsinterp.studies.frequency.figure import frequency_figure
from clsinterp.studies.frequency.spectrum import filters, shifts
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, wide
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.variants import Edit, on, variants

CUTS = (0.125, 0.25, 0.5, 0.75)  # shares of Nyquist
GROUPS = ("cls", "patches")


def filtered(setup: Setup, rows: Rows) -> None:
    """Similarity of tokens, and accuracy of probes, between images and their filtered versions."""
    total = dict.fromkeys(GROUPS, 0)

    def tokens(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(GROUPS, capture(setup.model, pixels, setup.layers, GROUPS)[0].double().cpu(), strict=True))

    def train(batch: Batch) -> torch.Tensor:
        found = tokens(batch.pixels)
        for g in GROUPS:
            total[g] = total[g] + found[g].sum(1, keepdim=True) / len(setup.train)
        return torch.cat([found[g] for g in GROUPS])

    probes = setup.fit_on_train(train, "train")
    found: dict[tuple, list] = {}
    for batch in setup.batches(setup.test, "filtered"):
        intact, donors = tokens(batch.pixels), derange(len(batch), (setup.seed, batch.number))
        for (kind, cut), pixels in {("intact", None): batch.pixels, **filters(batch.pixels, donors, CUTS)}.items():
            new = tokens(pixels)
            for p, (g, layer) in enumerate((g, layer) for g in GROUPS for layer in setup.layers):
                x, y = (t[g][layer] - total[g][layer] for t in (new, intact))
                found.setdefault(("similarity", kind, cut, g, layer), []).append(cosine_similarity(x, y))
                if kind == "amplitude exchanged":
                    found.setdefault(("to the donor", kind, cut, g, layer), []).append(cosine_similarity(x, y[donors]))
                hits = probes.scores(new[g][layer], p).argmax(-1) == batch.labels
                found.setdefault(("probe", kind, cut, g, layer), []).append(hits)
    for (measure, kind, cut, group, layer), parts in found.items():
        add = rows.share if measure == "probe" else rows.mean
        add(torch.cat(parts), measure=measure, kind=kind, cutoff=cut, group=group, layer=layer)


def random_embedding(setup: Setup, rows: Rows, draws: int) -> None:
    """Accuracy with refitted heads, CLS embedding learned or random, on the test images and shifted versions of them."""
    where = setup.model.layout.index("cls")

    def replaced(draw: int) -> Edit:
        noise = torch.randn(setup.model.d_model, generator=generator((setup.seed, draw)))
        return Edit({-1: on(where, lambda cls: (noise / noise.norm()).to(cls) * cls.norm(dim=-1, keepdim=True))})

    edits = [replaced(draw) for draw in range(draws)]

    def readouts(pixels: torch.Tensor) -> list[torch.Tensor]:
        return [x.cpu() for _, x in sorted(variants(setup.model, pixels, edits).readout.items())]

    trained = [(readouts(b.pixels), b.labels) for b in setup.batches(setup.train, "random CLS, train")]
    heads = [fit_head(((x[k], y) for x, y in trained), setup.model.family, setup.n_classes) for k in range(draws + 1)]
    right: dict[str, list] = {}
    for batch in setup.batches(setup.test, "random CLS, test"):
        for domain, shift in {"as it is": lambda x: x, **shifts((setup.seed, batch.number))}.items():
            answers = [head(x).argmax(-1) for x, head in zip(readouts(shift(batch.pixels)), heads, strict=True)]
            right.setdefault(domain, []).append(torch.stack(answers) == batch.labels)
    for domain, parts in right.items():
        hits = torch.cat(parts, dim=1).double()  # an image counts once, however many draws it was tried under
        rows.share(hits[0], measure="refitted head", kind=domain, embedding="learned")
        rows.mean(hits[1:].mean(0), measure="refitted head", kind=domain, embedding="random")


@study(options={"--draws": {"type": int, "default": 3, "help": "random CLS embeddings"}})
def main(setup: Setup, args) -> Findings:
    rows = Rows(**setup.facts())
    filtered(setup, rows)
    random_embedding(setup, rows, args.draws)
    table = rows.table()
    heads = table.filter([m == "refitted head" for m in table["measure"].to_pylist()])
    note = f"heads refitted on the train images; random: {args.draws} draws together; chance {1 / setup.n_classes:.3f}"
    return Findings(wide(heads, "kind", "embedding"), [frequency_figure(table, setup)], {"frequency": table}, (note,))


if __name__ == "__main__":
    main()
