"""What every zoo recipe shares: the images, augmentation, one training loop that resumes, export.

Nothing here knows an objective. A recipe gives `fit` a function from a batch to a loss.
"""

import argparse
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
PATCH = 4
GRID = SIDE // PATCH
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}


def parser(doc: str) -> argparse.ArgumentParser:
    """The options every recipe has."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=FASHION, help="folder with the four IDX files")
    options.add_argument("--out", type=Path, required=True, help="where the Hugging Face folder goes")
    options.add_argument("--workdir", type=Path, help="training state, log and facts; default OUT.work")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--train-images", type=int, help="only the first N, for a quick try")
    options.add_argument("--test-images", type=int, help="only the first N, for a quick try")
    return options


def parse(options: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments with ``workdir`` filled in, and the global random state seeded for the initial weights."""
    args = options.parse_args()
    args.workdir = args.workdir or args.out.with_name(args.out.name + ".work")
    torch.manual_seed(args.seed)
    return args


def load(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images and labels, test images and labels."""
    images, labels = load_split(args.data, "train")
    test_images, test_labels = load_split(args.data, "test")
    n, m = args.train_images, args.test_images
    return images[:n], labels[:n], test_images[:m], test_labels[:m]


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
    labels = np.frombuffer(gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return torch.tensor(images).view(-1, SIDE, SIDE), torch.tensor(labels, dtype=torch.long)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(n, 28, 28) uint8 -> (n, 3, 28, 28) float in [-1, 1], as the shipped image processor does it."""
    return (images.float() / 127.5 - 1.0).unsqueeze(1).expand(-1, 3, -1, -1)


def augment(images: torch.Tensor, generator: torch.Generator, pad: int = 1) -> torch.Tensor:
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
    """Linear warm-up, then a cosine to zero.

    An image costs the same in a batch of 32 as in one of 256 at this size, and short trainings lack steps, not images: the
    batch is small wherever the objective does not compare the images of a batch with each other.
    """

    epochs: int
    batch_size: int = 64
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


def equal_groups(module: nn.Module, schedule: Schedule) -> list[dict]:
    """`parameter_groups` with the same learning rate everywhere."""
    return parameter_groups({name: 0 for name, _ in module.named_parameters()}, module, schedule, layer_decay=1.0)


def depths(module: nn.Module, n_blocks: int, blocks: str = "layers") -> dict[str, int]:
    """Parameter name -> 0 for the embeddings, i + 1 for block i, above that for the final norm and the heads."""
    found = {}
    for name, _ in module.named_parameters():
        parts = name.split(".")
        if blocks in parts:
            found[name] = int(parts[parts.index(blocks) + 1]) + 1
        else:
            found[name] = 0 if "embeddings" in parts else n_blocks + 1
    return found


def draw_tokens(*tokens: nn.Parameter) -> None:
    """Start tokens (and positions) at random with deviation 0.02, as the original models do.

    `transformers` starts those of DeiT and BEiT at exactly zero, the singular point of the first LayerNorm: gradients
    there are 1 / sqrt(eps) too large (a norm of 7,600 was seen), and clipping by the global norm throttles all else.
    """
    for token in tokens:
        nn.init.trunc_normal_(token, std=0.02)


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
    after_step: Callable[[int, int], None] | None = None,
) -> float:
    """Train `module` in place and return the minutes it took. Resumes from ``workdir/NAME.pt``, one save per epoch.

    `loss_of(index, generator)` gives the loss of the training images at `index`; every random draw in it comes from
    `generator`, which is seeded by (seed, epoch), so an interrupted run ends like an undisturbed one.
    `after_step(step, total)` runs after each optimiser step. What it changes must be in the module's state (a momentum
    teacher is a submodule without gradients, a counter a buffer), for that is all that is saved.
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
            if after_step is not None:
                after_step(step, total)
            mean += loss.item() / steps_per_epoch
        minutes += (time.time() - started) / 60
        module.eval()
        line = {"stage": name, "epoch": epoch, "loss": round(mean, 4), "minutes": round(minutes, 2), **after_epoch()}
        with (workdir / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        state = {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "minutes": minutes,
        }
        unfinished = state_file.with_suffix(".tmp")  # a kill in mid-write must not cost the last good state
        torch.save(state, unfinished)
        unfinished.replace(state_file)
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


@torch.no_grad()
def ridge_head(
    features_of: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Ridge regression on +-1 targets: weight (10, d), bias (10,) and the penalty cross-validation chose.

    `features_of` maps normalised pixels to features (batch, d).
    """
    from clsinterp.probing.ridge import RidgeStats, solve

    stats = None
    for i in range(0, len(images), 500):
        x = features_of(normalise(images[i : i + 500]))
        stats = stats or RidgeStats.zeros(1, x.shape[1], len(CLASSES))
        stats.update(x.unsqueeze(0), labels[i : i + 500], torch.arange(i, i + len(x)))
    ridge = solve(stats)
    return ridge.weight[0].float(), ridge.bias[0].float(), float(ridge.alpha[0])


def fit_classifier(model, features_of: Callable[[torch.Tensor], torch.Tensor], images, labels) -> float:
    """Write the `ridge_head` on `features_of` into ``model.classifier`` and return its penalty."""
    weight, bias, alpha = ridge_head(features_of, images, labels)
    model.classifier.load_state_dict({"weight": weight, "bias": bias})
    return alpha


def finish(model, args: argparse.Namespace, test_images, test_labels, **facts) -> None:
    """Export to ``args.out``, load it back with stock `transformers`, score what was loaded, write ``facts.json``.

    The accuracy is that of the float16 file on disk, computed in float32.

    Raises:
        RuntimeError: the file does not hold exactly the weights the stock class expects.
    """
    save_checkpoint(model, args.out)
    loaded, info = type(model).from_pretrained(args.out, dtype=torch.float32, output_loading_info=True)
    if any(info.values()):
        raise RuntimeError(f"{args.out} does not load cleanly into {type(model).__name__}: {info}")
    loaded.eval()
    facts |= {
        "seed": args.seed,
        "train_images": args.train_images or "all",
        "test_images": len(test_images),
        "test_accuracy": accuracy(lambda x: loaded(x).logits, test_images, test_labels),
    }
    (args.workdir / "facts.json").write_text(json.dumps(facts, indent=1))
    print(facts)


def save_checkpoint(model, out: Path, side: int = SIDE) -> None:
    """Write a Hugging Face folder: config, float16 safetensors, image processor for square RGB images in [-1, 1]."""
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        do_resize=True,
        size={"height": side, "width": side},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        do_convert_rgb=True,
    )
    model.half().save_pretrained(out)
    processor.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())  # stored in half precision, meant to run in single
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
