"""Train ``zoo/beit``: masked prediction of visual tokens, then fine-tuning with layer-wise decay, on Fashion-MNIST.

BEiT (Bao et al. 2022, arXiv 2106.08254):

1. Every 4 x 4 patch has a discrete token; blocks of patches are hidden, and the model names the tokens of the hidden
   ones. BEiT takes the tokens from DALL-E's tokenizer; here the nearest of 512 k-means centres of pixels stands in.
   The CLS token gets no loss of its own.
2. Fine-tuning with cross-entropy on the CLS token, the learning rate 0.75 times smaller per block downwards.

LayerScale 0.1, relative position bias and no absolute positions, as in the paper; stochastic depth 0.1 in pretraining only,
since so short a fine-tuning underfits.

    python experiments/zoo/train_beit.py --out clsinterp/zoo/beit
"""

import common
import masking
import settling
import torch
from einops import rearrange
from torch import nn
from transformers import BeitConfig, BeitForImageClassification, BeitModel

N_CODES = 512
HIDDEN_PATCHES = 19  # of 49, before the last block overshoots: 44% in all
CONFIG = BeitConfig(
    vocab_size=N_CODES,
    hidden_size=64,
    num_hidden_layers=12,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=common.SIDE,
    patch_size=common.PATCH,
    layer_norm_eps=1e-6,  # the original's; at 1e-12 float16 would lose it
    use_mask_token=True,
    use_relative_position_bias=True,
    use_absolute_position_embeddings=False,
    use_mean_pooling=False,
    layer_scale_init_value=0.1,
    drop_path_rate=0.1,
    **common.LABELS,
)


def patches(gray: torch.Tensor) -> torch.Tensor:
    """(n, 28, 28) uint8 -> (n, 49, 16) float in [0, 1]."""
    return rearrange(gray.float() / 255, "n (h p) (w q) -> n (h w) (p q)", p=common.PATCH, q=common.PATCH)


def nearest(x: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre for each row of `x`; |x|^2 is the same for all centres and left out."""
    return (centres.square().sum(1) - 2 * x @ centres.mT).argmin(-1)


def learn_codebook(images: torch.Tensor, generator: torch.Generator, n: int) -> torch.Tensor:
    """K-means centres (512, 16) of `n` patches, started from distinct patches; an empty cluster keeps its centre."""
    x = patches(images).flatten(0, 1)
    x = x[torch.randint(len(x), (n,), generator=generator)]
    distinct = x.unique(dim=0)  # half of all patches are plain background: one code is enough for it
    centres = distinct[torch.randperm(len(distinct), generator=generator)[:N_CODES]]
    for _ in range(15):
        code = nearest(x, centres)
        size = torch.bincount(code, minlength=N_CODES).unsqueeze(1)
        mean = torch.zeros_like(centres).index_add_(0, code, x) / size.clamp(min=1)
        centres = torch.where(size > 0, mean, centres)
    return centres


class MaskedTokens(nn.Module):
    """BEiT with a linear map to the codes; the loss is the cross-entropy on the hidden patches."""

    def __init__(self, codebook: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.beit = BeitModel(CONFIG, add_pooling_layer=False)  # with the final LayerNorm, which stage 2 takes over
        self.decoder = nn.Linear(CONFIG.hidden_size, N_CODES)
        common.draw_tokens(self.beit.embeddings.cls_token, self.beit.embeddings.mask_token)

    def forward(self, gray: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        hidden = masking.block_mask(len(gray), HIDDEN_PATCHES, generator)
        tokens = self.beit(common.normalise(gray), bool_masked_pos=hidden).last_hidden_state
        target = nearest(patches(gray)[hidden], self.codebook)
        return nn.functional.cross_entropy(self.decoder(tokens[:, 1:][hidden]), target)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--codebook-patches", type=int, default=100_000, help="that the visual tokens are learned from")
    parser.add_argument("--pretrain-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--layer-decay", type=float, default=0.75)
    args = common.parse(parser)
    images, labels, test_images, test_labels = common.load(args)

    masked = MaskedTokens(learn_codebook(images, torch.Generator().manual_seed(args.seed), args.codebook_patches))
    # made before any training, so that a resumed run starts stage 2 with the same head; nothing is masked there,
    # and a shipped mask token would be a weight that no classifier uses
    stage_2 = {"use_mask_token": False, "drop_path_rate": 0.0}
    model = BeitForImageClassification(BeitConfig(**{**CONFIG.to_dict(), **stage_2}))

    pretraining = common.Schedule(args.pretrain_epochs, lr=1e-3)
    minutes = common.fit(
        "pretrain",
        masked,
        common.equal_groups(masked, pretraining),
        lambda index, g: masked(common.augment(images[index], g), g),
        len(images),
        pretraining,
        args.seed,
        args.workdir,
    )

    model.beit.load_state_dict({k: v for k, v in masked.beit.state_dict().items() if "mask_token" not in k})

    def loss_of(index: torch.Tensor, generator: torch.Generator, view: settling.View) -> torch.Tensor:
        logits = model(common.normalise(view(images[index], generator))).logits
        return nn.functional.cross_entropy(logits, labels[index], label_smoothing=0.1)

    depth_of = common.depths(model, CONFIG.num_hidden_layers)
    schedule = common.Schedule(args.epochs, lr=1.5e-3)
    minutes += settling.fit(
        "finetune",
        model,
        lambda plan: common.parameter_groups(depth_of, model, plan, args.layer_decay),
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
        objective="masked prediction of k-means visual tokens, then cross-entropy on the CLS token with "
        "layer-wise learning-rate decay",
        epochs={"pretrain": args.pretrain_epochs, "finetune": args.epochs, "settling": settling.SETTLING.epochs},
        layer_decay=args.layer_decay,
        steps=(args.pretrain_epochs + args.epochs + settling.SETTLING.epochs) * (len(images) // schedule.batch_size),
        minutes=round(minutes, 1),
    )


if __name__ == "__main__":
    main()
