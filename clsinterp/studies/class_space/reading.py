"""Tokens in class embedding space (Vilas, Schaumlöffel and Roig 2023): where the class is, and what put it there."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.probing.lens import lens_logits, lens_readout
from clsinterp.probing.metrics import ranks
from clsinterp.studies.setup import Batch, Setup

COMPONENTS = ("attn", "mlp")
PARTS = ("cls", "patches")


@dataclass(frozen=True)
class InClassSpace:
    """One batch read by the lens at every block; token 0 is the CLS token where there is one, then the patches.

    Attributes:
        rank: 0-based rank of the true class after each block, (layer, batch, token).
        logit: true-class logit before block 0 and after each block, (1 + layer, batch, token).
        added: true-class logit of what attention and the MLP add, each normed on its own, (2, layer, batch, token).
        answer: top class after each block, (layer, batch, token).
        answer_before: top class of the stream before each block, (layer, batch, token).
        answer_added: top class of what attention and the MLP add, (2, layer, batch, token).
    """

    rank: Int[Tensor, "layer batch token"]
    logit: Float[Tensor, "steps batch token"]
    added: Float[Tensor, "2 layer batch token"]
    answer: Int[Tensor, "layer batch token"]
    answer_before: Int[Tensor, "layer batch token"]
    answer_added: Int[Tensor, "2 layer batch token"]


def parts_of(setup: Setup) -> list[str]:
    """The token groups that are read: CLS where the family has one, and the patches."""
    return [part for part in PARTS if part in setup.model.layout.slices]


def part_logits(setup: Setup, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token classes"]:
    """Lens logits of CLS (if any) and patch tokens, each through its own part of the classifier, final norm first."""
    model = setup.model
    out = []
    for part in parts_of(setup):
        where = model.layout.index(part)
        chosen = tokens[:, where].unsqueeze(1) if isinstance(where, int) else tokens[:, where]
        out.append(lens_logits(chosen, setup.head, lens_readout(model.family, part), model.lens_norm))
    return torch.cat(out, dim=1)


@torch.no_grad()
def read(setup: Setup, batch: Batch) -> InClassSpace:
    """The residual stream and both sublayers' outputs of a batch, read by the lens."""
    names = [f"blocks.{i}.hook_{x}" for i in setup.layers for x in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    cache = setup.model.run_with_cache(batch.pixels, names)[1]

    def logits(name: str, i: int) -> Tensor:
        return part_logits(setup, cache[name, i])

    before = logits("resid_pre", 0)
    targets = batch.targets.to(before.device).unsqueeze(1).expand(before.shape[:2])

    def own(x: Tensor) -> Tensor:
        return x.gather(-1, targets.unsqueeze(-1)).squeeze(-1).cpu()

    rank, logit, answer = [], [own(before)], [before.argmax(-1).cpu()]
    added: tuple[list[Tensor], list[Tensor]] = ([], [])
    answer_added: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i in setup.layers:
        for c, name in enumerate(COMPONENTS):
            x = logits(f"{name}_out", i)
            added[c].append(own(x))
            answer_added[c].append(x.argmax(-1).cpu())
        x = logits("resid_post", i)
        rank.append(ranks(x, targets).cpu())
        logit.append(own(x))
        answer.append(x.argmax(-1).cpu())
    return InClassSpace(
        torch.stack(rank),
        torch.stack(logit),
        torch.stack([torch.stack(x) for x in added]),
        torch.stack(answer[1:]),
        torch.stack(answer[:-1]),
        torch.stack([torch.stack(x) for x in answer_added]),
    )


def matches(found: InClassSpace) -> dict[str, Tensor]:
    """Whether a token's top class after a block is that of attention's output, the MLP's, the stream before, or none.

    The paper's code tests attention twice for the last one and never the MLP; here it is none of the three.
    """
    named = {
        "attn": found.answer == found.answer_added[0],
        "mlp": found.answer == found.answer_added[1],
        "before": found.answer == found.answer_before,
    }
    return named | {"none": ~(named["attn"] | named["mlp"] | named["before"])}


def class_embeddings(setup: Setup, part: str = "cls") -> Float[Tensor, "classes d_model"]:
    """The classifier's weights as the lens on tokens of `part` uses them."""
    readout = lens_readout(setup.model.family, part)
    basis = torch.eye(setup.model.d_model).to(setup.head.weights[0])
    return (setup.head.read(basis, readout) - setup.head.read(torch.zeros_like(basis), readout)).mT
