"""Train ``zoo/vit``: a 12-block ViT classifier whose read-out is the CLS token, on Fashion-MNIST.

Recipes (``--recipe``), none of which ever sees a swapped CLS token:

``supervised``  cross-entropy from scratch.
``masked``      masked-patch pretraining (predict the pixels of hidden patches; the CLS token gets no loss of its own),
                then fine-tuning with layer-wise learning-rate decay: how large ViTs are often trained.
``both``        cross-entropy from scratch while a third of the patches is hidden and predicted in the same pass: a
                patch-level objective throughout, no layer-wise decay; the settling epoch hides nothing.

    python experiments/zoo/train_vit.py --recipe supervised --out clsinterp/zoo/vit
"""

import common
import settling
import torch
from einops import rearrange
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

N_BLOCKS = 12
CONFIG = ViTConfig(
    hidden_size=64,
    num_hidden_layers=N_BLOCKS,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=common.SIDE,
    patch_size=common.PATCH,
    **common.LABELS,
)
HIDDEN = {"masked": 0.6, "both": 0.3}  # share of the patches
EPOCHS = {"supervised": 8, "masked": 2, "both": 2}  # with labels


class Masked(nn.Module):
    """A classifier whose encoder also predicts hidden patches, through a mask token and a linear decoder."""

    def __init__(self, model: ViTForImageClassification) -> None:
        super().__init__()
        self.model = model
        self.mask_token = nn.Parameter(torch.zeros(1, 1, CONFIG.hidden_size))
        self.decoder = nn.Linear(CONFIG.hidden_size, common.PATCH**2)

    def forward(
        self, gray: torch.Tensor, share: float, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the mean squared error on the hidden `share` of patches, each normalised on its own."""
        pixels = common.normalise(gray)
        p = common.PATCH
        target = rearrange(pixels[:, 0], "b (h p) (w q) -> b (h w) (p q)", p=p, q=p)
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        target = (target - mean) / (var + 1e-2).sqrt()
        hidden = torch.rand(target.shape[:2], generator=generator) < share
        # The stock module takes a mask for its own mask token; handing it ours keeps the shipped class a plain one.
        embeddings = self.model.vit.embeddings
        embeddings.mask_token = self.mask_token
        tokens = self.model.vit(pixels, bool_masked_pos=hidden).last_hidden_state
        embeddings.mask_token = None
        error = (self.decoder(tokens[:, 1:]) - target).square().mean(-1)
        return self.model.classifier(tokens[:, 0]), (error * hidden).sum() / hidden.sum()


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--recipe", choices=list(EPOCHS), default="supervised")
    options.add_argument("--pretrain-epochs", type=int, default=2, help="of masked")
    options.add_argument("--epochs", type=int, help=f"with labels; default {EPOCHS}")
    options.add_argument("--layer-decay", type=float, default=0.65, help="of masked")
    args = common.parse(options)
    images, labels, test_images, test_labels = common.load(args)
    model = ViTForImageClassification(CONFIG)
    masked = Masked(model)
    epochs, minutes = {}, 0.0

    if args.recipe == "masked":
        epochs["pretrain"] = args.pretrain_epochs
        pretraining = common.Schedule(args.pretrain_epochs, lr=1.5e-3)
        minutes += common.fit(
            "pretrain",
            masked,
            common.equal_groups(masked, pretraining),
            lambda index, g: masked(common.augment(images[index], g), HIDDEN["masked"], g)[1],
            len(images),
            pretraining,
            args.seed,
            args.workdir,
        )

    trained = masked if args.recipe == "both" else model
    decay = args.layer_decay if args.recipe == "masked" else 1.0

    def loss_of(index: torch.Tensor, generator: torch.Generator, view: settling.View) -> torch.Tensor:
        gray, extra = view(images[index], generator), 0.0
        if args.recipe == "both" and view is common.augment:
            logits, extra = masked(gray, HIDDEN["both"], generator)
        else:
            logits = model(common.normalise(gray)).logits
        return nn.functional.cross_entropy(logits, labels[index], label_smoothing=0.1) + extra

    epochs["labels"] = args.epochs or EPOCHS[args.recipe]
    epochs["settling"] = settling.SETTLING.epochs
    depth_of = common.depths(trained, N_BLOCKS)
    schedule = common.Schedule(epochs["labels"])
    minutes += settling.fit(
        "labels",
        trained,
        lambda plan: common.parameter_groups(depth_of, trained, plan, decay),
        loss_of,
        len(images),
        schedule,
        args.seed,
        args.workdir,
        after_epoch=lambda: {"test": common.accuracy(lambda x: model(x).logits, test_images, test_labels)},
    )
    common.finish(
        model,
        args,
        test_images,
        test_labels,
        objective={
            "supervised": "cross-entropy on labels, read from the CLS token",
            "masked": f"masked patches, then cross-entropy with layer-wise learning-rate decay {decay}",
            "both": "cross-entropy on labels and prediction of hidden patches together",
        }[args.recipe],
        recipe=args.recipe,
        epochs=epochs,
        steps=sum(epochs.values()) * (len(images) // schedule.batch_size),
        minutes=round(minutes, 1),
    )


if __name__ == "__main__":
    main()
