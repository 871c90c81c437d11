"""Train ``zoo/vit``: a 12-block ViT classifier whose read-out is the CLS token, on Fashion-MNIST.

Recipes (``--recipe``):

``supervised``  cross-entropy from scratch.
``masked``      masked-patch pretraining (predict the pixels of hidden patches; the CLS token gets no loss of its own),
                then fine-tuning with layer-wise learning-rate decay: how large ViTs are often trained.

Neither recipe ever sees a swapped CLS token.

    python experiments/zoo/train_vit.py --recipe masked --out clsinterp/zoo/vit
"""

import argparse
import json
from pathlib import Path

import common
import torch
from einops import rearrange
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

PATCH = 4
CONFIG = ViTConfig(
    hidden_size=64,
    num_hidden_layers=12,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=common.SIDE,
    patch_size=PATCH,
    num_labels=len(common.CLASSES),
    id2label=dict(enumerate(common.CLASSES)),
    label2id={name: i for i, name in enumerate(common.CLASSES)},
)
MASK_RATIO = 0.6


class MaskedPatches(nn.Module):
    """ViT with a mask token and a linear decoder; the loss is the squared error on normalised hidden patches."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViTModel(CONFIG, add_pooling_layer=False, use_mask_token=True)
        self.decoder = nn.Linear(CONFIG.hidden_size, PATCH * PATCH)

    def forward(self, gray: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = common.normalise(gray)
        target = rearrange(pixels[:, 0], "b (h p) (w q) -> b (h w) (p q)", p=PATCH, q=PATCH)
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        target = (target - mean) / (var + 1e-2).sqrt()
        hidden = torch.rand(target.shape[:2], generator=generator) < MASK_RATIO
        tokens = self.vit(pixels, bool_masked_pos=hidden).last_hidden_state
        error = (self.decoder(tokens[:, 1:]) - target).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()


def depth_of(model: nn.Module) -> dict[str, int]:
    """Parameter name -> 0 for the embeddings, i + 1 for block i, above that for the final norm and the head."""
    depths = {}
    for name, _ in model.named_parameters():
        parts = name.split(".")
        if "layers" in parts:
            depths[name] = int(parts[parts.index("layers") + 1]) + 1
        else:
            depths[name] = 0 if "embeddings" in parts else CONFIG.num_hidden_layers + 1
    return depths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=["supervised", "masked"], default="masked")
    parser.add_argument("--data", type=Path, default=common.FASHION, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, required=True, help="where the Hugging Face folder goes")
    parser.add_argument("--workdir", type=Path, help="training state and log; default OUT.work")
    parser.add_argument("--pretrain-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--layer-decay", type=float, help="default 0.65 for masked, 1.0 for supervised")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    workdir = args.workdir or args.out.with_name(args.out.name + ".work")
    images, labels = common.load_split(args.data, "train")
    test_images, test_labels = common.load_split(args.data, "test")
    torch.manual_seed(args.seed)
    model = ViTForImageClassification(CONFIG)
    minutes = 0.0

    if args.recipe == "masked":
        masked = MaskedPatches()
        pretraining = common.Schedule(args.pretrain_epochs, lr=1.5e-3)
        minutes += common.fit(
            "pretrain",
            masked,
            common.parameter_groups(depth_of(masked), masked, pretraining, layer_decay=1.0),
            lambda index, g: masked(common.augment(images[index], g), g),
            len(images),
            pretraining,
            args.seed,
            workdir,
        )
        encoder = {k: v for k, v in masked.vit.state_dict().items() if "mask_token" not in k}
        model.vit.load_state_dict(encoder, strict=True)

    schedule = common.Schedule(args.epochs)
    layer_decay = args.layer_decay or (0.65 if args.recipe == "masked" else 1.0)

    def loss_of(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        logits = model(common.normalise(common.augment(images[index], generator))).logits
        return nn.functional.cross_entropy(logits, labels[index], label_smoothing=0.1)

    def test_accuracy() -> float:
        return common.accuracy(lambda x: model(x).logits, test_images, test_labels)

    minutes += common.fit(
        "finetune",
        model,
        common.parameter_groups(depth_of(model), model, schedule, layer_decay),
        loss_of,
        len(images),
        schedule,
        args.seed,
        workdir,
        after_epoch=lambda: {"test": test_accuracy()},
    )
    common.save_checkpoint(model, args.out)
    facts = {
        "recipe": args.recipe,
        "layer_decay": layer_decay,
        "minutes": round(minutes, 1),
        "seed": args.seed,
        "test_accuracy": common.accuracy(lambda x: model.float()(x).logits, test_images, test_labels),
    }
    (workdir / "facts.json").write_text(json.dumps(facts, indent=1))
    print(facts)


if __name__ == "__main__":
    main()
