"""The five published checkpoints with the note's settings, and about how long they take."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from clsinterp.figures.note import published_curves
from clsinterp.runs.cost import Device, Shape
from clsinterp.runs.request import Request

# What the note's author did (`published_curves.json` says how that is known). BEiT was read from its CLS token, for which the
# published checkpoint has no classifier; DINOv2's patch mean was turned off by zeros.
NOTE: dict[str, Any] = {"train_per_class": 200, "test_split": "validation", "final_norm": False, "cls_only": "zero"}
OWN: dict[str, dict[str, Any]] = {"beit": {"config": {"use_mean_pooling": False}, "head": "fit"}}
TOKENS = {"vit": 197, "deit": 198, "beit": 197, "dinov2": 257, "clip": 50}  # at 224 pixels, with the prefix
POOLED = ("dinov2", "clip")  # they read patches after the last block
N_TRAIN, N_TEST = 200_000, 50_000  # of ImageNet-1k, as the note took them


def requests(data: str, **changes: Any) -> dict[str, Request]:
    """The run of each of the five by its short name, on `data`; `changes` are fields of `Request` for all of them."""
    names = published_curves()["checkpoints"]
    return {key: Request(model=name, data=data, **NOTE | OWN.get(key, {}) | changes) for key, name in names.items()}


@dataclass(frozen=True)
class Expected:
    """Seconds that the five take on ImageNet-1k at least: all block-passes at the rate of a large matrix product.

    Attributes:
        here: on this machine's CPU, by a product timed just now.
        gpu: on `device`, by its data sheet.
    """

    here: float
    gpu: float
    device: str


def expected(n_train: int = N_TRAIN, n_test: int = N_TEST) -> Expected:
    """`Expected` for so many images; reading and decoding them, which goes on beside, is left out."""
    shapes = [Shape(key, 12, 768, tokens, 3072, reads_token=key not in POOLED) for key, tokens in TOKENS.items()]
    flops = sum((n_train * s.n_layers + n_test * s.fork_passes) * s.block_flops for s in shapes)
    gpu = Device()
    return Expected(flops / _matmul_rate(), flops / gpu.flops, gpu.name)


def _matmul_rate(side: int = 1536, repeats: int = 3) -> float:
    """FLOPs per second of a float32 matrix product, the best of a few."""
    a = torch.ones(side, side)
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best
