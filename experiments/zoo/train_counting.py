"""Train ``zoo/counting``: a small ViT that counts one to six garments on a canvas, for `experiments/causality.py`.

Cross-entropy from scratch on canvases that are composed anew for every batch from the training images of Fashion-MNIST,
half of them drawn as pairs of which one object was taken away, as the study does. 8 blocks, width 64, 49 patches of 8 px.

    python experiments/zoo/train_counting.py --out clsinterp/zoo/counting
"""

import json
from pathlib import Path

import common
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from clsinterp.studies.causality.images import MOST, NAMES, OBJECT, SIDE, compose, make_pairs, visible

LABELS = dict(enumerate(NAMES))
CONFIG = ViTConfig(
    hidden_size=64,
    num_hidden_layers=8,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=SIDE,
    patch_size=8,
    num_labels=MOST,
    id2label=LABELS,
    label2id={name: i for i, name in LABELS.items()},
)
CARD = """---
license: mit
datasets: [fashion_mnist]
---
# zoo/counting

A ViT ({blocks} blocks, width 64, 56 x 56 pixels, patches of 8) that counts one to six garments on a canvas; class i is the
count i + 1. Canvases are composed by `clsinterp.studies.causality.images` from images of Fashion-MNIST (Xiao, Rasul and Vollgraf
2017, arXiv 1708.07747; MIT): garments of 14 x 14 pixels in a jittered 3 x 3 grid on dim noise.

Trained from scratch with cross-entropy for {steps} steps of {batch} canvases, {minutes} minutes on one core shared with
other work, seed {seed}, by `python experiments/zoo/train_counting.py`. Accuracy on canvases of test garments: {accuracy:.3f};
both images of a pair that differs by one garment counted right: {both:.3f}.

Made for `experiments/causality.py`. It counts nothing but such canvases.
"""


def pixels(canvases: torch.Tensor) -> torch.Tensor:
    """Canvases in [0, 1] as the image processor hands them over: 8 bit, three channels, in [-1, 1]."""
    return ((canvases * 255).round() / 127.5 - 1).unsqueeze(1).expand(-1, 3, -1, -1)


def shrunk(images: torch.Tensor) -> torch.Tensor:
    """Garments of 28 x 28 as objects, without those too dark to be seen."""
    return visible(nn.functional.avg_pool2d(images.float().unsqueeze(1), 28 // OBJECT).squeeze(1) / 255)


@torch.no_grad()
def scores(model: nn.Module, garments: torch.Tensor, n: int, seed: int) -> tuple[float, float]:
    """Accuracy on canvases with one to six objects, and the share of pairs of which both images are counted right."""
    random = torch.Generator().manual_seed(seed)
    hits, both = 0, 0
    for start in range(0, n, 200):
        size = min(200, n - start)
        count = torch.arange(size) % MOST
        answer = model(pixels(compose(garments, count + 1, random)[0])).logits.argmax(-1)
        hits += int((answer == count).sum())
        pairs = make_pairs(garments, size, (seed, start))
        clean, corrupted = (model(pixels(x)).logits.argmax(-1) + 1 for x in (pairs.clean, pairs.corrupted))
        both += int(((clean == pairs.count) & (corrupted == pairs.count - 1)).sum())
    return hits / n, both / n


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--epochs", type=int, default=30, help="of --steps canvases batches each")
    options.add_argument("--steps", type=int, default=120, help="batches per epoch")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--evaluate", type=int, default=2000, help="canvases and pairs the export is scored on")
    args = common.parse(options)
    images, _, test_images, _ = common.load(args)
    train, test = shrunk(images), shrunk(test_images)
    model = ViTForImageClassification(CONFIG)
    common.draw_tokens(model.vit.embeddings.cls_token, model.vit.embeddings.position_embeddings)

    def loss_of(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        half = len(index) // 2
        count = torch.randint(1, MOST + 1, (len(index) - half,), generator=generator)
        single, _ = compose(train, count, generator)
        pairs = make_pairs(train, half // 2, int(torch.randint(2**31, (), generator=generator)))
        x = torch.cat([single, pairs.clean, pairs.corrupted])
        y = torch.cat([count, pairs.count, pairs.count - 1]) - 1
        return nn.functional.cross_entropy(model(pixels(x)).logits, y)

    schedule = common.Schedule(args.epochs, batch_size=args.batch_size)
    minutes = common.fit(
        "counting",
        model,
        common.equal_groups(model, schedule),
        loss_of,
        args.steps * args.batch_size,
        schedule,
        args.seed,
        args.workdir,
        after_epoch=lambda: dict(zip(("test", "pairs"), scores(model, test, min(400, args.evaluate), 1), strict=True)),
    )
    export(model, args, test, minutes)


def export(model: nn.Module, args, test: torch.Tensor, minutes: float) -> None:
    """Write the folder, load it back with stock `transformers`, score what was loaded, write card and facts."""
    common.save_checkpoint(model, args.out, SIDE)
    loaded, info = ViTForImageClassification.from_pretrained(args.out, dtype=torch.float32, output_loading_info=True)
    if any(info.values()):
        raise RuntimeError(f"{args.out} does not load cleanly: {info}")
    accuracy, both = scores(loaded.eval(), test, args.evaluate, 2)
    facts = {"test_accuracy": accuracy, "pairs_right": both, "minutes": round(minutes, 1), "seed": args.seed,
             "steps": args.epochs * args.steps, "batch_size": args.batch_size}  # fmt: skip
    for folder in (args.workdir, args.out):
        (Path(folder) / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    card = CARD.format(blocks=CONFIG.num_hidden_layers, steps=facts["steps"], batch=args.batch_size,
                       minutes=facts["minutes"], seed=args.seed, accuracy=accuracy, both=both)  # fmt: skip
    (Path(args.out) / "README.md").write_text(card)
    print(facts)


if __name__ == "__main__":
    main()
