"""Accuracy with attention cut, and with only some patches taking part: the perturbations of Vilas et al. on a test set."""

from collections.abc import Mapping

import torch

from clsinterp.probing.metrics import identifiability, ranks
from clsinterp.studies.class_space import cuts
from clsinterp.studies.class_space.reading import part_logits, parts_of
from clsinterp.studies.setup import Setup
from clsinterp.studies.tidy import Rows

SHARES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of patches kept
UNCUT = "intact"


def perturb(setup: Setup, rows: Rows, limit: int, more: Mapping[str, cuts.Order] | None = None) -> dict[str, float]:
    """Add to `rows` what perturbations do to the first `limit` test images; returns areas under accuracy by share kept.

    Rows: ``curve`` "output" and "patches" (their mean identifiability after the last block) for each cut of attention in
    ``order``; ``most relevant kept`` and ``least relevant kept`` for each ``order`` and ``share`` of
    patches: those of `cuts.ORDERS` and `more`, each of them as it is for another image (`cuts.another`: what of it is the place),
    and `cuts.BY_CHANCE`.
    """
    has_cls = "cls" in setup.model.layout.slices
    own = {name: order for name, order in {**cuts.ORDERS, **(more or {})}.items() if has_cls or name != "lens"}
    others = {cuts.ANOTHER.format(name): cuts.another(order) for name, order in own.items()}
    orders = own | others | cuts.BY_CHANCE
    found: dict[tuple[str, str, float | None], list[torch.Tensor]] = {}
    chosen = setup.test.keep(list(range(min(limit, len(setup.test)))))
    for batch in setup.batches(chosen, "perturbations"):

        def right(readout: torch.Tensor, targets: torch.Tensor = batch.targets) -> torch.Tensor:
            return setup.head(readout).argmax(-1).cpu() == targets

        for cut in [None, *(cuts.CUTS if has_cls else ["patches see themselves only"])]:
            readout, last = cuts.cut_attention(setup, batch, cut)
            found.setdefault(("output", cut or UNCUT, None), []).append(right(readout))
            logits = part_logits(setup, last)[:, parts_of(setup).index("patches") :]
            rank = ranks(logits, batch.targets.to(logits.device).unsqueeze(1).expand(logits.shape[:2])).cpu()
            share = identifiability(rank, setup.head.n_classes).mean(1)
            found.setdefault(("patches", cut or UNCUT, None), []).append(share)
        for order, relevance_of in orders.items():
            relevance = relevance_of(setup, batch).cpu()
            for kept in SHARES:
                n = max(1, round(kept * relevance.shape[1]))  # a patch mean of no patches does not exist
                for which in ("most", "least"):
                    keep = cuts.top(relevance, n, first=which == "most")
                    answer = right(cuts.with_patches(setup.model, batch.pixels, keep)[0])
                    found.setdefault((f"{which} relevant kept", order, kept), []).append(answer)
    value = {}
    for (curve, order, kept_share), parts in found.items():
        add = rows.mean if curve == "patches" else rows.share
        value[curve, order, kept_share] = add(
            torch.cat(parts), curve=curve, order=order, share=kept_share, control="trained"
        )
    pairs = dict.fromkeys((curve, order) for curve, order, s in value if s is not None)
    return {
        f"{curve} by {order}": cuts.area(list(SHARES), [value[curve, order, s] for s in SHARES])
        for curve, order in pairs
    }
