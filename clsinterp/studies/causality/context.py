"""Class and context tokens (Vilas et al. 2023): is the class told where the object is, and does it take the rest?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.interventions import Seed, donors, generator
from clsinterp.probing.metrics import identifiability, ranks
from clsinterp.studies.causality.setup import CountingSetup
from clsinterp.studies.class_space.cuts import with_patches
from clsinterp.studies.class_space.reading import part_logits, parts_of
from clsinterp.studies.tidy import Rows

DRAWS = 300  # of the permutation test, as in the paper


def difference(values: Float[Tensor, "n patch"], where: Bool[Tensor, "n patch"]) -> Float[Tensor, " n"]:
    """Mean of `values` where `where` is true minus the mean where it is not, image by image."""
    return _share(values, where) - _share(values, ~where)


def permutation_test(
    values: Float[Tensor, "n patch"], where: Bool[Tensor, "n patch"], seed: Seed, draws: int = DRAWS
) -> float:
    """One-sided p of the mean `difference` over images being above 0 by where the patches stand alone.

    Patches change places within their image, so that images, whose patches are alike, stay whole. (The paper's code shuffles
    the patches of all images together, which takes them for independent.) The least p is 1 / (draws + 1).
    """
    random = generator(seed)
    found = difference(values, where).mean()
    drawn = [
        difference(values.gather(1, torch.rand(values.shape, generator=random).argsort(-1)), where).mean()
        for _ in range(draws)
    ]
    return (1 + sum(bool(d >= found) for d in drawn)) / (1 + draws)


@torch.no_grad()
def context(setup: CountingSetup, rows: Rows) -> None:
    """Add to `rows` how identifiable the count is at patches with objects and at the background, and what either does alone.

    The clean images of the pairs are read. Curves: ``identifiability`` and ``identifiability rate`` of the groups ``objects``
    and ``background`` by layer; ``objects above background`` with the permutation test's ``p``, the same for the count
    of another image (``another count``: what patches say whatever is in the image), and paired what is ``beyond
    another count``; and without a layer
    ``output, patches alone`` and ``identifiability rate, patches alone`` (after the last block) with the patches of a group
    alone, or all. Images in which objects touch every patch tell no difference and are left out.
    """
    assert setup.test_pairs is not None, "a counting setup has pairs"
    model, patches, n_classes = setup.model, setup.model.layout.index("patches"), setup.head.n_classes
    first = parts_of(setup).index("patches")  # the lens reads a CLS token before the patches, where there is one
    names = [f"blocks.{i}.hook_resid_post" for i in setup.layers]
    found: dict[tuple[str, str], list[Tensor]] = {}
    rank: list[Tensor] = []
    label: list[Tensor] = []
    mask: list[Tensor] = []
    for batch in setup.batches(setup.test, "context"):
        groups = setup.masks(setup.test_pairs, batch)
        where = (groups["removed object"] | groups["other objects"])[::2, patches]
        told = ~where.all(1)  # every clean image has objects
        if not told.any():
            continue
        where, pixels, targets = where[told], batch.pixels[::2][told.to(batch.pixels.device)], batch.targets[::2][told]

        def lens(stream: Tensor, targets: Tensor = targets) -> Tensor:
            logits = part_logits(setup, stream)[:, first:]
            return ranks(logits, targets.to(logits.device).unsqueeze(1).expand(logits.shape[:2])).cpu()

        cache = model.run_with_cache(pixels, names)[1]
        logits = torch.stack([part_logits(setup, cache[name])[:, first:].cpu() for name in names])
        rank.append(logits.argsort(dim=-1, descending=True, stable=True).argsort(-1))  # of every count
        label.append(targets)
        mask.append(where)
        for group, keep in (("all patches", torch.ones_like(where)), ("objects", where), ("background", ~where)):
            readout, stream = with_patches(model, pixels, keep)
            hits, share = setup.head(readout).argmax(-1).cpu() == targets, _share(lens(stream) == 0, keep)
            found.setdefault((group, "output"), []).append(hits)
            found.setdefault((group, "identifiability rate"), []).append(share)
    if not rank:
        raise RequestError("objects touch every patch of every image; class and context tokens need some without.")
    where, own = torch.cat(mask), torch.cat(label)
    other = own[donors("cross_label", own, (setup.seed, 5))]
    for layer, every in zip(setup.layers, torch.cat(rank, dim=1), strict=True):
        of_layer, of_other = (every[torch.arange(len(own)), :, count] for count in (own, other))
        values, control = (identifiability(found, n_classes) for found in (of_layer, of_other))
        for group, keep in (("objects", where), ("background", ~where)):
            rows.mean(_share(values, keep), curve="identifiability", group=group, layer=layer)
            rows.mean(_share(of_layer == 0, keep), curve="identifiability rate", group=group, layer=layer)
        p = permutation_test(values, where, (setup.seed, layer, 3))
        rows.mean(difference(values, where), curve="objects above background", layer=layer, p=p)
        rows.mean(difference(control, where), curve="objects above background, another count", layer=layer)
        rows.mean(
            difference(values - control, where), curve="objects above background, beyond another count", layer=layer
        )
    for (group, curve), parts in found.items():
        add = rows.share if curve == "output" else rows.mean
        add(torch.cat(parts), curve=f"{curve}, patches alone", group=group, layer=None)


def _share(values: Tensor, where: Bool[Tensor, "n patch"]) -> Float[Tensor, " n"]:
    return (values * where).sum(-1).double() / where.sum(-1)
