"""Train ``zoo/dinov2``: self-distillation without labels, then a ridge head, on Fashion-MNIST.

DINOv2 (Oquab et al. 2023, arXiv 2304.07193). A student sees two large crops (28 px) and several small ones (16 px), a
teacher, the moving average of the student, sees the large ones:

- DINO: from its CLS token the student predicts the teacher's prototypes for another crop of the same image.
- iBOT (arXiv 2111.07832): at hidden patches it predicts the teacher's prototypes of the patches it can't see.
- KoLeo: the CLS tokens of a batch spread out.

The teacher's scores are balanced over prototypes by Sinkhorn-Knopp, which prevents collapse. No label is used in this.
The teacher's backbone is exported, with a ridge head on [CLS, patch mean] of its normalised tokens.

    python experiments/zoo/train_dinov2.py --out clsinterp/zoo/dinov2
"""

import math

import common
import masking
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model

CONFIG = Dinov2Config(
    hidden_size=64,
    num_hidden_layers=12,
    num_attention_heads=4,
    mlp_ratio=4,
    image_size=common.SIDE,
    patch_size=common.PATCH,
    layerscale_value=1.0,
    initializer_range=0.1,  # the usual 0.02 is for widths near 768; at 64 it leaves the blocks hardly any effect
    **common.LABELS,
)
SMALL = 16  # px
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
KOLEO = 0.5
# Milder than the original's, which is for objects in scenes: a small part of a garment no longer tells which it is.
LARGE_AREA, SMALL_AREA = (0.7, 1.0), (0.4, 0.7)
ASPECT, CONTRAST = 1.15, 0.2
MOMENTUM = 0.99  # at the start; 1 at the end


def crop(gray: torch.Tensor, area: tuple[float, float], side: int, generator: torch.Generator) -> torch.Tensor:
    """A random part of each image, resized to `side`, of another contrast: (n, 3, side, side).

    No flips: all shoes of the data face the same way.
    """
    n = len(gray)
    u = torch.rand(5, n, generator=generator)
    share = area[0] + (area[1] - area[0]) * u[0]
    aspect = torch.exp(math.log(ASPECT) * (2 * u[1] - 1))
    wide, high = (share * aspect).sqrt().clamp(max=1), (share / aspect).sqrt().clamp(max=1)
    x, y = (1 - wide) * (2 * u[2] - 1), (1 - high) * (2 * u[3] - 1)
    zero = torch.zeros(n)
    affine = torch.stack([torch.stack([wide, zero, x], 1), torch.stack([zero, high, y], 1)], 1)
    grid = F.affine_grid(affine, [n, 1, side, side], align_corners=False)
    light = F.grid_sample(gray.float().unsqueeze(1) / 255, grid, align_corners=False, padding_mode="border")
    light = (light * (1 + CONTRAST * (2 * u[4] - 1)).view(n, 1, 1, 1)).clamp(max=1)
    return (2 * light - 1).expand(-1, 3, -1, -1)


class Prototypes(nn.Module):
    """Tokens (..., 64) -> cosines with the prototypes (..., n)."""

    def __init__(self, n: int = 1024, d: int = CONFIG.hidden_size) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(d, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, d))
        for layer in self.mlp[::2]:
            nn.init.zeros_(layer.bias)  # random biases would outweigh the little by which images differ at the start
        self.directions = nn.Parameter(torch.randn(n, d))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.mlp(tokens), dim=-1) @ F.normalize(self.directions, dim=-1).mT


class Network(nn.ModuleDict):
    """A backbone with one prototype head for the CLS token and one for the patches."""

    def __init__(self) -> None:
        super().__init__({"backbone": Dinov2Model(CONFIG), "cls": Prototypes(), "patch": Prototypes()})


@torch.no_grad()
def sinkhorn(scores: torch.Tensor) -> torch.Tensor:
    """Scores (n, prototypes) -> probabilities whose rows sum to 1 and that use every prototype alike."""
    q = ((scores - scores.max()) / TEACHER_TEMPERATURE).exp()
    for _ in range(3):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    return q


def koleo(tokens: torch.Tensor) -> torch.Tensor:
    """Minus the mean log distance to the nearest other row, all on the unit sphere."""
    x = F.normalize(tokens, dim=-1)
    with torch.no_grad():
        nearest = (x @ x.mT).fill_diagonal_(-1).argmax(1)
    return -(x - x[nearest]).norm(dim=1).clamp(min=1e-6).log().mean()


class SelfDistillation(nn.Module):
    """Student, teacher and the loss. The teacher is part of the state and gets no gradient."""

    def __init__(self, n_small: int) -> None:
        super().__init__()
        self.n_small = n_small
        self.student, self.teacher = Network(), Network()
        # Positions as loud as the patches' pixels. At the usual 0.02 attention is blind to place for thousands of steps, and
        # the mean of a garment's patches says little: a random network's ridge head has 0.65 then and 0.77 so.
        nn.init.normal_(self.student.backbone.embeddings.position_embeddings)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int, total: int) -> None:
        """Move the teacher towards the student, ever more slowly."""
        momentum = 1 - (1 - MOMENTUM) * (1 + math.cos(math.pi * step / total)) / 2
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)

    def hidden_patches(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Masks (n, 49): every other image (on average) hides blocks of 10 to 50% of its patches."""
        target = 5 + 18 * torch.rand(n, generator=generator)
        masked = torch.rand(n, 1, generator=generator) < 0.5
        return masking.block_mask(n, target, generator) & masked

    def forward(self, gray: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        large = torch.cat([crop(gray, LARGE_AREA, common.SIDE, generator) for _ in range(2)])
        small = torch.cat([crop(gray, SMALL_AREA, SMALL, generator) for _ in range(self.n_small)])
        hidden = self.hidden_patches(len(large), generator)

        with torch.no_grad():
            tokens = self.teacher.backbone(large).last_hidden_state
            target = sinkhorn(self.teacher.cls(tokens[:, 0])).view(2, len(gray), -1)
            patch_target = sinkhorn(self.teacher.patch(tokens[:, 1:][hidden]))

        tokens = self.student.backbone(large, bool_masked_pos=hidden).last_hidden_state
        cls = torch.cat([tokens[:, 0], self.student.backbone(small).last_hidden_state[:, 0]])
        named = F.log_softmax(self.student.cls(cls) / STUDENT_TEMPERATURE, -1).view(2 + self.n_small, len(gray), -1)
        # a large crop predicts the other large one; a small crop predicts both
        across = -(target.flip(0) * named[:2]).sum(-1).mean(1).sum()
        down = -(target.sum(0) * named[2:]).sum(-1).mean(1).sum()
        dino = (across + down) / (2 + 2 * self.n_small)
        named = F.log_softmax(self.student.patch(tokens[:, 1:][hidden]) / STUDENT_TEMPERATURE, -1)
        ibot = -(patch_target * named).sum(-1).mean()
        spread = sum(koleo(half) for half in tokens[:, 0].chunk(2)) / 2
        return dino + ibot + KOLEO * spread


def classifier(backbone: Dinov2Model, images: torch.Tensor, labels: torch.Tensor) -> Dinov2ForImageClassification:
    """A copy of the backbone with a ridge head on [CLS, patch mean], in eval mode."""
    model = Dinov2ForImageClassification(CONFIG).eval()
    model.dinov2.load_state_dict(backbone.state_dict())

    def features(pixels: torch.Tensor) -> torch.Tensor:
        tokens = model.dinov2(pixels).last_hidden_state
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)

    common.fit_classifier(model, features, images, labels)
    return model


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--small-crops", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = common.parse(parser)
    images, labels, test_images, test_labels = common.load(args)
    module = SelfDistillation(args.small_crops)

    def progress() -> dict:
        """For the log only: a head on part of the data; the training never sees these labels."""
        with torch.random.fork_rng():  # a new head draws initial weights
            model = classifier(module.teacher.backbone, images[:5000], labels[:5000])
        return {"test": common.accuracy(lambda x: model(x).logits, test_images[:2000], test_labels[:2000])}

    schedule = common.Schedule(args.epochs, batch_size=32, lr=args.lr, warmup=0.05)
    minutes = common.fit(
        "distil",
        module,
        common.equal_groups(module, schedule),
        lambda index, g: module(images[index], g),
        len(images),
        schedule,
        args.seed,
        args.workdir,
        after_epoch=progress,
        after_step=module.follow,
    )
    common.finish(
        classifier(module.teacher.backbone, images, labels),
        args,
        test_images,
        test_labels,
        objective="self-distillation with a momentum teacher: DINO on multi-crops, iBOT on hidden patches, KoLeo; "
        "no labels; ridge head on CLS and patch mean",
        epochs={"distil": args.epochs},
        small_crops=args.small_crops,
        lr=args.lr,
        steps=args.epochs * (len(images) // schedule.batch_size),
        minutes=round(minutes, 1),
    )


if __name__ == "__main__":
    main()
