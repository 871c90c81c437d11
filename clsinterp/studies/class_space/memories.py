"""Sublayers as key-value memories in class space (Vilas et al. 2023, after Geva et al. 2021).

A memory of an MLP is a hidden unit: its key is what activates it, its value the column of the output map it writes with. A
memory of attention is a dimension of a head: its activation is the attention-weighted value (`z`), its value again a column
of the output map.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsinterp.hooks.visits import HookPoint
from clsinterp.interventions import generator
from clsinterp.models.block_maps import layer_scale, mlp_maps, out_map
from clsinterp.models.tokens import Where
from clsinterp.studies.class_space.reading import COMPONENTS, class_embeddings, parts_of
from clsinterp.studies.setup import Batch, Setup

TOP = 5  # memories of a token, and of a class, as in the paper
PLACES = {"attn": "attn.hook_z", "mlp": "mlp.hook_post"}


def value_vectors(setup: Setup, layer: int, component: str) -> Float[Tensor, "d_model memory"]:
    """The columns of the output map of attention or of the MLP, LayerScale multiplied in: what enters the stream.

    The paper's models have no LayerScale.
    """
    block: Any = setup.model.blocks[layer]
    if component == "attn":
        weight = out_map(setup.model, layer).weight
        scale = layer_scale(setup.model, layer, "scale1")
    else:
        weight = getattr(block.mlp._module, mlp_maps(setup.model, layer)[1]).weight
        scale = layer_scale(setup.model, layer, "scale2")
    return weight * (scale.unsqueeze(1) if isinstance(scale, Tensor) else scale)


def projections(setup: Setup, layer: int, component: str, part: str) -> Float[Tensor, "classes memory"]:
    """Product of every class embedding, as the lens uses it on tokens of `part`, with every value vector."""
    values = value_vectors(setup, layer, component)
    return class_embeddings(setup, part).to(values) @ values


@torch.no_grad()
def class_value_agreement(setup: Setup, layer: int, component: str) -> Float[Tensor, " classes"]:
    """For each class the largest cosine between its embedding and a value vector of a sublayer."""
    values = value_vectors(setup, layer, component)
    embeddings = class_embeddings(setup).to(values)
    return (F.normalize(embeddings, dim=1) @ F.normalize(values, dim=0)).amax(dim=1).cpu()


@dataclass(frozen=True)
class Used:
    """Memories that one batch uses, by sublayer (attention, MLP); token 0 is the CLS token where there is one.

    Attributes:
        agrees: a token's `top` most active memories hold one of those whose values are closest to the image's class.
        by_chance: the same for another class, drawn for each image.
        named: the class closest to the value of each of these memories.
    """

    agrees: Bool[Tensor, "2 layer batch token"]
    by_chance: Bool[Tensor, "2 layer batch token"]
    named: Int[Tensor, "2 layer batch token top"]


@torch.no_grad()
def used(setup: Setup, batch: Batch, top: int = TOP) -> Used:
    """Key-value agreement of every token with its image's class, in every sublayer.

    As the paper's code has it: memories are ranked by activation for a token, and by the product of value and class
    embedding for a class; the control is a random class. Ours: never the image's own, and the embeddings of the token's
    own part of the classifier.
    """
    model = setup.model
    active: dict[str, Tensor] = {}

    def watch(value: Tensor, hook: HookPoint) -> None:
        flat = value.flatten(2) if hook.name.endswith("hook_z") else value  # (batch, token, memory)
        active[hook.name] = flat.topk(min(top, flat.shape[-1]), dim=-1).indices

    with model.hooks([(lambda name: name.endswith(tuple(PLACES.values())), watch)]):
        model(batch.pixels)
    n_classes = setup.head.n_classes
    step = torch.randint(1, n_classes, batch.targets.shape, generator=generator((setup.seed, batch.number, 2)))
    classes = {"agrees": batch.targets, "by_chance": (batch.targets + step) % n_classes}
    found: dict[str, list[Tensor]] = {"agrees": [], "by_chance": [], "named": []}
    for component in COMPONENTS:
        for layer in setup.layers:
            index = active[f"blocks.{layer}.{PLACES[component]}"]
            by_part: dict[str, list[Tensor]] = {name: [] for name in found}
            for part in parts_of(setup):
                here = _at(index, model.layout.index(part))
                product = projections(setup, layer, component, part)
                best = product.topk(min(top, product.shape[1]), dim=1).indices  # (class, top)
                for name, wanted in classes.items():
                    own = best[wanted.to(best.device)][:, None, None, :]
                    by_part[name].append((here.unsqueeze(-1) == own).flatten(2).any(-1).cpu())
                by_part["named"].append(product.argmax(0)[here].cpu())
            for name, parts in by_part.items():
                found[name].append(torch.cat(parts, dim=1))
    return Used(**{name: torch.stack(x).unflatten(0, (2, -1)) for name, x in found.items()})


def _at(x: Tensor, where: Where) -> Tensor:
    return x[:, where].unsqueeze(1) if isinstance(where, int) else x[:, where]
