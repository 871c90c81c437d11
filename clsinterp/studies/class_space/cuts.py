"""Attention cut between token groups, patches left out of the computation, and the order to leave them out in."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsinterp.hooks.hooked import NamesFilter
from clsinterp.hooks.visits import HookFn, HookPoint
from clsinterp.interventions import generator
from clsinterp.probing.lens import lens_logits, lens_readout
from clsinterp.studies.setup import Batch, Setup
from clsinterp.vision_model import VisionModel

Pattern = Float[Tensor, "batch head query key"]
Order = Callable[[Setup, Batch], Tensor]  # relevance (batch, patch)


def no_cls(model: VisionModel) -> Callable[[Pattern, HookPoint], Pattern]:
    """A hook on patterns: patches no longer attend to the CLS token. As in Vilas et al. the rest is not scaled up."""
    cls, patches = model.layout.index("cls"), model.layout.index("patches")

    def cut(pattern: Pattern, hook: HookPoint) -> Pattern:
        pattern[:, :, patches, cls] = 0
        return pattern

    return cut


def self_only(model: VisionModel) -> Callable[[Pattern, HookPoint], Pattern]:
    """A hook on patterns: every patch attends to itself alone."""
    patches = model.layout.index("patches")

    def cut(pattern: Pattern, hook: HookPoint) -> Pattern:
        pattern[:, :, patches] = torch.eye(pattern.shape[-1], device=pattern.device)[patches].to(pattern)
        return pattern

    return cut


CUTS = {"patches do not see CLS": no_cls, "patches see themselves only": self_only}


@torch.no_grad()
def cut_attention(setup: Setup, batch: Batch, cut: str | None) -> tuple[Tensor, Tensor]:
    """The read-out (batch, d_readout) and the stream after the last block, with attention cut in every block.

    Args:
        setup: the model.
        batch: the images.
        cut: a name from `CUTS`, or None.
    """
    model = setup.model
    hooks = [] if cut is None else [(lambda name: name.endswith("hook_pattern"), CUTS[cut](model))]
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    with model.hooks(hooks):
        cache = model.run_with_cache(batch.pixels, ["hook_readout", last])[1]
    return cache["hook_readout"], cache[last]


@torch.no_grad()
def with_patches(
    model: VisionModel, pixels: Tensor, keep: Bool[Tensor, "batch patch"]
) -> tuple[Float[Tensor, "batch d_readout"], Float[Tensor, "batch token d_model"]]:
    """The read-out, and the stream after the last block, when only the patches in `keep` take part.

    Position embeddings and all, this equals dropping the others. No token attends to a patch that is left out, in any block,
    and the patch mean is over the kept ones; what the stream holds at patches that are left out means nothing. Dropping the
    tokens themselves would fail for BEiT, whose relative positions are those of a full grid.
    """
    where = model.layout.index("patches")
    keep = keep.to(pixels.device)

    def hide(scores: Tensor, hook: HookPoint) -> Tensor:
        scores[..., where] = scores[..., where].masked_fill(~keep[:, None, None], float("-inf"))
        return scores

    def fill(tokens: Tensor, hook: HookPoint) -> Tensor:
        patches, kept = tokens[:, where], keep.unsqueeze(-1)
        mean = (patches * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
        tokens[:, where] = torch.where(kept, patches, mean)  # the mean over all is then the mean over the kept
        return tokens

    norms_tokens = model.family.ln_final is not None
    last = "ln_final.hook_normalized" if norms_tokens else f"blocks.{model.n_layers - 1}.hook_resid_post"
    hooks: list[tuple[NamesFilter, HookFn]] = [(lambda name: name.endswith("hook_attn_scores"), hide), (last, fill)]
    end = f"blocks.{model.n_layers - 1}.hook_resid_post"
    with model.hooks(hooks):
        cache = model.run_with_cache(pixels, ["hook_readout", end])[1]
    return cache["hook_readout"], cache[end]


def lens_relevance(setup: Setup, batch: Batch) -> Float[Tensor, "batch patch"]:
    """Relevance of each patch as in Vilas et al.: how much the CLS token's attention to it lowers the lens's loss.

    In every block the lens reads what attention writes into the CLS token; the gradient of its cross-entropy with
    respect to the pattern, at the CLS token's row, is summed over heads and blocks, with the sign turned. The paper's
    code applies the softmax twice in that loss; here it is applied once. Without a CLS read-out (CLIP) the lens is the
    classifier's own.

    Raises:
        RequestError: a model without a CLS token.
    """
    model = setup.model
    cls = model.layout.index("cls")
    targets = batch.targets.to(batch.pixels.device)
    readout = lens_readout(model.family, "cls")

    found: dict[str, Tensor] = {}

    def watch(value: Tensor, hook: HookPoint) -> Tensor:
        if hook.name.endswith("hook_pattern"):
            value = value.detach().requires_grad_()
        found[hook.name] = value
        return value

    relevance = torch.zeros(len(batch), 1, device=batch.pixels.device)
    with torch.enable_grad(), model.hooks([(lambda name: name.endswith(("hook_pattern", "hook_attn_out")), watch)]):
        model(batch.pixels)
        for i in setup.layers:
            written = found[f"blocks.{i}.hook_attn_out"][:, cls]
            logits = lens_logits(written, setup.head, readout, model.lens_norm)
            loss = F.cross_entropy(logits, targets, reduction="sum")
            # The pattern of this block alone: earlier blocks' patterns would add what the paper leaves out.
            (grad,) = torch.autograd.grad(loss, found[f"blocks.{i}.attn.hook_pattern"], retain_graph=True)
            relevance = relevance - grad[:, :, cls, model.layout.index("patches")].sum(1)
    return relevance.detach()


def input_gradient(setup: Setup, batch: Batch) -> Float[Tensor, "batch patch"]:
    """Relevance of each patch from the model's output alone: gradient of the true-class logit times patch embedding."""
    model = setup.model
    targets = batch.targets.to(batch.pixels.device)
    found: dict[str, Tensor] = {}

    def watch(value: Tensor, hook: HookPoint) -> Tensor | None:
        found[hook.name] = value.detach().requires_grad_() if hook.name == "hook_embed" else value
        # The read-out is only looked at: a checkpoint without a classifier refuses to have it written.
        return found[hook.name] if hook.name == "hook_embed" else None

    with torch.enable_grad(), model.hooks([("hook_embed", watch), ("hook_readout", watch)]):
        model(batch.pixels)
        logits = setup.head(found["hook_readout"])
        total = logits.gather(1, targets.unsqueeze(1)).sum()
        return (torch.autograd.grad(total, found["hook_embed"])[0] * found["hook_embed"]).sum(-1).detach()


def chance(setup: Setup, batch: Batch) -> Float[Tensor, "batch patch"]:
    """Random relevance, drawn from (seed, batch)."""
    rows, columns = setup.model.patch_grid(batch.pixels)
    return torch.rand(len(batch), rows * columns, generator=generator((setup.seed, batch.number, 1)))


def adjoining(setup: Setup, batch: Batch) -> Float[Tensor, "batch patch"]:
    """How near each patch is to one drawn from (seed, batch): what is kept by chance, but in one piece, as objects are."""
    rows, columns = setup.model.patch_grid(batch.pixels)
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    centre = torch.randint(len(place), (len(batch),), generator=generator((setup.seed, batch.number, 4)))
    return -torch.cdist(place[centre], place)


def another(order: Order) -> Order:
    """The relevance of the patches of the image before, in place of the image's own: the same places, no matter what is there."""
    return lambda setup, batch: order(setup, batch).roll(1, 0)


def by_probes(rank: Int[Tensor, "layer patch n"]) -> Callable[[Setup, Batch], Float[Tensor, "batch patch"]]:
    """Relevance of each patch by linear probes: how early the true class ranks, summed over blocks, as in Vilas et al.

    Args:
        rank: of the true class by a probe of that layer and patch, for all test images in order.
    """

    def relevance(setup: Setup, batch: Batch) -> Float[Tensor, "batch patch"]:
        first = batch.number * setup.batch_size
        return -rank[:, :, first : first + len(batch)].sum(0).mT.float()

    return relevance


ORDERS: dict[str, Order] = {
    "lens": lens_relevance,
    "gradient": input_gradient,
}  # what an image's patches are ordered by
BY_CHANCE: dict[str, Order] = {"chance": chance, "chance in one piece": adjoining}
ANOTHER = "{}, another image's"


def top(relevance: Float[Tensor, "batch patch"], n: int, first: bool = True) -> Bool[Tensor, "batch patch"]:
    """The `n` most (or least) relevant patches of each image."""
    order: Int[Tensor, "batch patch"] = relevance.argsort(dim=1, descending=first, stable=True)
    return torch.zeros_like(relevance, dtype=torch.bool).scatter(1, order[:, :n], True)


def area(x: list[float], y: list[float]) -> float:
    """Area under the points by the trapezoid rule, divided by the length of the x axis."""
    steps = zip(x, x[1:], y, y[1:], strict=False)
    return sum((b - a) * (p + q) / 2 for a, b, p, q in steps) / (x[-1] - x[0])
