"""What every zoo recipe shares: the images, augmentation, one training loop that resumes, export.

Nothing here knows an objective. A recipe gives `fit` a function from a batch to a loss.
"""

import gzip
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
SIDE = 28


def load_split(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The images (n, 28, 28) uint8 and labels (n,) int64 of ``train`` or ``test`` from the four IDX files."""
    stem = {"train": "train", "test": "t10k"}[split]
    images_file = folder / f"{stem}-images-idx3-ubyte.gz"
    if not images_file.exists():
        raise SystemExit(
            f"{images_file} is not there. Install Debian's package dataset-fashion-mnist, "
            "or put the four IDX files of Fashion-MNIST into one folder and name it with --data."
        )
    images = np.frombuffer(gzip.decompress(images_file.read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(
        gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    return torch.tensor(images).view(-1, SIDE, SIDE), torch.tensor(labels, dtype=torch.long)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(n, 28, 28) uint8 -> (n, 3, 28, 28) float in [-1, 1], as the shipped image processor does it."""
    return (images.float() / 127.5 - 1.0).unsqueeze(1).expand(-1, 3, -1, -1)


def augment(images: torch.Tensor, generator: torch.Generator, pad: int = 2) -> torch.Tensor:
    """Random shift by up to `pad` pixels and random horizontal flip, an own draw for each image."""
    n = len(images)
    padded = nn.functional.pad(images, (pad, pad, pad, pad))
    corner = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
    rows = (corner[0] + torch.arange(SIDE)).unsqueeze(2)
    cols = (corner[1] + torch.arange(SIDE)).unsqueeze(1)
    shifted = padded[torch.arange(n).view(n, 1, 1), rows, cols]
    flip = torch.rand(n, generator=generator) < 0.5
    return torch.where(flip.view(n, 1, 1), shifted.flip(-1), shifted)


@dataclass
class Schedule:
    """Linear warm-up, then a cosine to zero."""

    epochs: int
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1


def parameter_groups(depth_of: dict[str, int], module: nn.Module, schedule: Schedule, layer_decay: float):
    """One group per parameter: lr times ``layer_decay ** (distance from the top)``; no weight decay on vectors."""
    top = max(depth_of.values())
    return [
        {
            "params": [p],
            "scale": layer_decay ** (top - depth_of[name]),
            "weight_decay": schedule.weight_decay if p.ndim > 1 and "token" not in name else 0.0,
        }
        for name, p in module.named_parameters()
        if p.requires_grad
    ]


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Index batches of one shuffled epoch, the ragged last one dropped."""
    order = torch.randperm(n, generator=generator)
    yield from order[: n - n % size].view(-1, size)


def fit(
    name: str,
    module: nn.Module,
    groups: list[dict],
    loss_of: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
    n: int,
    schedule: Schedule,
    seed: int,
    workdir: Path,
    after_epoch: Callable[[], dict] = dict,
) -> float:
    """Train `module` in place and return the minutes it took. Resumes from ``workdir/NAME.pt``, one save per epoch.

    `loss_of(index, generator)` gives the loss of the training images at `index`; every random draw in it comes from
    `generator`, which is seeded by (seed, epoch), so an interrupted run ends like an undisturbed one.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    state_file = workdir / f"{name}.pt"
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
    steps_per_epoch = n // schedule.batch_size
    total = schedule.epochs * steps_per_epoch
    warmup = max(1, int(schedule.warmup * total))
    first, minutes = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        first, minutes = state["epoch"] + 1, state["minutes"]
    for epoch in range(first, schedule.epochs):
        generator = torch.Generator().manual_seed(seed * 10_007 + epoch)
        torch.manual_seed(seed * 10_007 + epoch)  # dropout and stochastic depth draw from the global state
        module.train()
        started, mean = time.time(), 0.0
        for i, index in enumerate(batches(n, schedule.batch_size, generator)):
            step = epoch * steps_per_epoch + i
            factor = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / total))
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * group["scale"] * factor
            loss = loss_of(index, generator)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            mean += loss.item() / steps_per_epoch
        minutes += (time.time() - started) / 60
        module.eval()
        line = {"stage": name, "epoch": epoch, "loss": round(mean, 4), "minutes": round(minutes, 2), **after_epoch()}
        with (workdir / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        torch.save(
            {
                "module": module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                "minutes": minutes,
            },
            state_file,
        )
    module.eval()
    return minutes


@torch.no_grad()
def accuracy(logits_of: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `images` (n, 28, 28) whose arg-max logit is the label."""
    hits = sum(
        int((logits_of(normalise(images[i : i + 500])).argmax(-1) == labels[i : i + 500]).sum())
        for i in range(0, len(images), 500)
    )
    return hits / len(images)


def save_checkpoint(model, out: Path) -> None:
    """Write a Hugging Face folder: config, float16 safetensors, image processor for 28 x 28 RGB in [-1, 1]."""
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        do_resize=True,
        size={"height": SIDE, "width": SIDE},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_convert_rgb=True,
    )
    model.half().save_pretrained(out)
    processor.save_pretrained(out)
