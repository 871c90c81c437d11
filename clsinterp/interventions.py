"""What can be done to token tensors: pure functions, seeded, usable in any trace or hook.

Index makers say which image of the batch each image's token is taken from; the others make replacement tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clsinterp.errors import RequestError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Seed = int | Sequence[int]
TokenEdit = Callable[[Tensor], Tensor]  # tokens (batch, ...) in, as many out
SWAPS = ("permute", "derange", "cross_label")  # give every image a donor, see `donors`
REPLACEMENTS = ("mean", "zero", "noise", "normal")  # put something else in the tokens' place, see `replacement`
MODES = (*SWAPS, *REPLACEMENTS)


def generator(seed: Seed) -> torch.Generator:
    """A CPU generator for `seed`; a sequence such as (run seed, batch index) gives independent streams."""
    parts = [seed] if isinstance(seed, int) else list(seed)
    digest = hashlib.blake2b(repr([int(p) for p in parts]).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def permute(n: int, seed: Seed) -> Int[Tensor, " n"]:
    """A uniformly drawn permutation of ``range(n)``; some images may keep their own token.

    Example:
        >>> sorted(permute(5, seed=0).tolist())
        [0, 1, 2, 3, 4]
    """
    return torch.randperm(n, generator=generator(seed))


def derange(n: int, seed: Seed) -> Int[Tensor, " n"]:
    """A uniformly drawn permutation of ``range(n)`` without a fixed point: no image keeps its own token.

    Raises:
        RequestError: n is below 2.

    Example:
        >>> bool((derange(5, seed=0) == torch.arange(5)).any())
        False
    """
    if n < 2:
        raise RequestError(f"a batch of {n} was given; a derangement needs at least 2 images.")
    draws = generator(seed)
    while True:  # a permutation is a derangement with probability 1/e
        index = torch.randperm(n, generator=draws)
        if not (index == torch.arange(n)).any():
            return index


def cross_label(labels: Int[Tensor, " n"], seed: Seed) -> Int[Tensor, " n"]:
    """Donors of another label for every image: a random permutation repaired by swaps.

    Where one label fills more than half of the batch no such permutation exists; then every image draws its donor
    from the images of other labels, and donors repeat.

    Raises:
        RequestError: the batch has one label only.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 2])
        >>> bool((labels[cross_label(labels, seed=0)] == labels).any())
        False
    """
    labels = labels.cpu()
    n, most = len(labels), int(labels.unique(return_counts=True)[1].max()) if len(labels) else 0
    if most == n:
        raise RequestError(
            f"cross_label needs at least two labels in a batch, but all {n} images have label "
            f"{labels[0].item() if n else None}; use a larger batch, another order, or mode='derange'."
        )
    draws = generator(seed)
    if 2 * most > n:
        others = (labels.unsqueeze(0) != labels.unsqueeze(1)).double()
        return torch.multinomial(others, 1, generator=draws).squeeze(1)
    index = torch.randperm(n, generator=draws)
    for i in torch.nonzero(labels[index] == labels).flatten().tolist():
        if labels[index[i]] != labels[i]:  # an earlier swap has repaired it
            continue
        fits = (labels != labels[i]) & (labels[index] != labels[i])  # partners j for which both ends come out right
        j = torch.nonzero(fits).flatten()
        j = j[torch.randint(len(j), (1,), generator=draws)]
        index[[i, int(j)]] = index[[int(j), i]]
    return index


def donors(mode: str, labels: Int[Tensor, " n"], seed: Seed) -> Int[Tensor, " n"]:
    """The donor of each image of a batch under `mode`: ``permute``, ``derange`` or ``cross_label``.

    Raises:
        RequestError: an unknown mode, or a batch in which it cannot be drawn.
    """
    if mode == "permute":
        return permute(len(labels), seed)
    if mode == "derange":
        return derange(len(labels), seed)
    if mode == "cross_label":
        return cross_label(labels, seed)
    raise RequestError(f"mode {mode!r} was given; one of {', '.join(SWAPS)} is expected.")


def collision_rate(labels: Int[Tensor, " n"], donor: Int[Tensor, " n"]) -> float:
    """Share of images whose donor has their own label, so that the swap leaves the label in place."""
    return float((labels[donor] == labels).double().mean())


def swap(index: Int[Tensor, " batch"]) -> TokenEdit:
    """The replacement that gives row i the token of row ``index[i]``."""
    return lambda tokens: tokens[index.to(tokens.device)]


def partly(change: TokenEdit, part: TokenEdit) -> TokenEdit:
    """Only a part of what `change` does: x + part(change(x) - x).

    Args:
        change: of whole tokens, such as a swap.
        part: a linear map of the difference, such as the projector onto a subspace.

    Example:
        >>> first = lambda difference: difference * torch.tensor([1.0, 0.0])
        >>> partly(swap(torch.tensor([1, 0])), first)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[3.0, 2.0], [1.0, 4.0]]
    """
    return lambda tokens: tokens + part(change(tokens) - tokens)


def mean(tokens: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Every row replaced by the batch mean (mean ablation)."""
    return tokens.mean(dim=0, keepdim=True).expand_as(tokens)


def zero(tokens: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Every row replaced by zeros. Known to overstate dependence (arXiv 2604.14433): a comparison, not a default."""
    return torch.zeros_like(tokens)


def noise(seed: Seed) -> TokenEdit:
    """The replacement by Gaussian noise with the batch's mean and standard deviation, dimension by dimension."""

    def replace(tokens: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        draw = torch.randn(tokens.shape, generator=generator(seed)).to(tokens)
        return tokens.mean(dim=0) + draw * tokens.std(dim=0, unbiased=False)

    return replace


def normal(seed: Seed) -> TokenEdit:
    """The replacement by standard normal noise, mean 0 and variance 1 in every dimension, whatever the tokens are.

    The mode ``normal`` of the note's code (github.com/lrast/CLSTokenAnalysis, ``analysis.py``: ``torch.randn(batch, dims)``).
    Its tokens have a length that those of the layer need not have; `noise` keeps their mean and spread.
    """
    return lambda tokens: torch.randn(tokens.shape, generator=generator(seed)).to(tokens)


def replacement(mode: str, seed: Seed) -> TokenEdit:
    """The token edit of a mode without donors: `mean`, `zero`, `noise` or `normal`.

    Raises:
        RequestError: another mode.
    """
    made: dict[str, TokenEdit] = {"mean": mean, "zero": zero, "noise": noise(seed), "normal": normal(seed)}
    if mode not in made:
        raise RequestError(f"mode {mode!r} was given; one of {', '.join(made)} is expected.")
    return made[mode]


def exchange(other: Float[Tensor, "batch ..."]) -> TokenEdit:
    """The replacement by the tokens of a paired batch (for instance, clean against corrupted images).

    Raises:
        RequestError: when applied to tokens of another shape.
    """

    def replace(tokens: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        if tokens.shape != other.shape:
            raise RequestError(
                f"exchange: tokens of shape {tuple(tokens.shape)} cannot take those of shape {tuple(other.shape)}."
            )
        return other.to(tokens)

    return replace
