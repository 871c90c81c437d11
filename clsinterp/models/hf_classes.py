"""Between the classes that checkpoints of `transformers` are saved by and those that the family table describes."""

from __future__ import annotations

import re
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
import transformers
from torch import nn

from clsinterp.errors import RequestError
from clsinterp.models.family import Family
from clsinterp.models.unstable import attention_kernel, from_config


def from_pretrained(family: Family, where: str, config: Any, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The checkpoint at `where` as its family's class, or as a tower saved alone, and what transformers says of its keys."""
    # Other shapes are let through to be reported by name.
    options |= {"weights_only": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    hf_class, config = loaded_as(family, config)
    return hf_class.from_pretrained(where, config=config, **options)


def loaded_as(family: Family, config: Any) -> tuple[Any, Any]:
    """The class of transformers that a checkpoint of `family` is loaded as, and the config that it takes."""
    hf_class = getattr(transformers, family.made_from or family.hf_class)
    wanted = hf_class.config_class
    if isinstance(config, wanted):
        return hf_class, config
    if not hasattr(config, "vision_config") and "vision_config" not in wanted.sub_configs:  # ViT-MAE loaded as a ViT
        return hf_class, wanted.from_dict(config.to_dict())
    # The whole, of which the vision tower has a class of its own; or that tower saved alone, whose keys have no prefix.
    return getattr(transformers, config.architectures[0]), config


def fitting(
    module: nn.Module, family: Family, has_head: bool = True, has_norm: bool = True
) -> tuple[nn.Module, Family]:
    """What of `module` the table describes, and the row that does.

    A classifier without trained weights (`has_head` is False), or of no class, is left out: the backbone alone remains. So is
    a norm after pooling that a backbone has not, or has without trained weights (`has_norm` is False).

    Raises:
        RequestError: the module holds no backbone of the family.
    """
    module, family = _described(module, family, has_head)
    pooled = family.lens_norm if family.ln_final is None else None
    if pooled and not (has_norm and pooled in dict(module.named_modules())):
        family = replace(family, lens_norm=None)
    return module, family


def _described(module: nn.Module, family: Family, has_head: bool) -> tuple[nn.Module, Family]:
    name = type(module).__name__
    if family.made_from == name:
        module = as_class(module, family.hf_class, family.weight_names)
        name = family.hf_class
    if name == family.hf_class:
        trained = has_head and not any(isinstance(module.get_submodule(p), nn.Identity) for p in family.heads)
        if trained or not family.heads:
            return module, family
        return module.get_submodule(family.root), family.bare
    wanted = family.backbone or family.hf_class
    bare = family.bare if family.heads or family.root else family
    inside = list(module.modules())
    for part in inside:
        if type(part).__name__ == wanted:
            return part, bare
    # Of another class with the same weights, such as ViTMAEModel, whose own forward leaves out patches at random.
    for part in reversed(inside):
        if type(part).__name__ in family.architectures:
            return as_class(part, wanted, family.weight_names), bare
    raise RequestError(f"{name} holds no {wanted}, which is what is read of a {family.name} model.")


def as_class(module: Any, name: str, weight_names: tuple[tuple[str, str], ...] = ()) -> nn.Module:
    """The weights of `module`, shared, in a model of the class `name` of transformers.

    Raises:
        RequestError: the class has weights that `module` lacks.
    """
    hf_class = getattr(transformers, name)
    config: Any = module.config
    if not isinstance(config, hf_class.config_class):
        config = hf_class.config_class.from_dict(config.to_dict())
    weights = {renamed(key, weight_names): value for key, value in module.state_dict().items()}
    pooled = any("pooler." in key for key in weights)
    options = {"add_pooling_layer": pooled} if "add_pooling_layer" in signature(hf_class).parameters else {}
    parameter = next(module.parameters())
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced at once
        new = from_config(hf_class, config, attn_implementation=attention_kernel(module), **options)
    new.to(device=parameter.device, dtype=parameter.dtype)
    if lacking := new.load_state_dict(weights, strict=False, assign=True).missing_keys:
        raise RequestError(f"{type(module).__name__} lacks weights that {name} has: {', '.join(lacking[:6])}.")
    return new.train(module.training)


def renamed(key: str, weight_names: tuple[tuple[str, str], ...]) -> str:
    """`key` after every (pattern, replacement), in order."""
    for pattern, replacement in weight_names:
        key = re.sub(pattern, replacement, key)
    return key
