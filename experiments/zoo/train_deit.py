"""Train ``zoo/deit``: hard-label distillation from a small convolutional teacher, on Fashion-MNIST.

DeiT (Touvron et al. 2021, arXiv 2012.12877, section 4): a distillation token joins the CLS token. The CLS head learns
the label, the distillation head learns the teacher's arg-max on the same augmented image, half of the loss each. The
output averages both heads.

The teacher is a convnet trained here first, as in the paper (there a RegNetY).

    python experiments/zoo/train_deit.py --out clsinterp/zoo/deit
"""

import common
import torch
from torch import nn
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

CONFIG = DeiTConfig(
    hidden_size=64,
    num_hidden_layers=12,
    num_attention_heads=4,
    intermediate_size=256,
    image_size=common.SIDE,
    patch_size=common.PATCH,
    **common.LABELS,
)


class Teacher(nn.Sequential):
    """Convolutions at 28, 14 and 7 pixels, then a linear layer on a 3 x 3 map: (n, 3, 28, 28) -> (n, 10)."""

    def __init__(self) -> None:
        def conv(c_in: int, c_out: int) -> list[nn.Module]:
            return [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]

        super().__init__(
            *conv(1, 32),
            nn.MaxPool2d(2),
            *conv(32, 64),
            *conv(64, 64),
            nn.MaxPool2d(2),
            *conv(64, 128),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(128 * 3 * 3, len(common.CLASSES)),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels[:, :1])  # the three channels are equal


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--teacher-epochs", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=8)
    args = common.parse(parser)
    images, labels, test_images, test_labels = common.load(args)
    teacher, model = Teacher(), DeiTForImageClassificationWithTeacher(CONFIG)
    start = model.deit.embeddings
    common.draw_tokens(start.cls_token, start.distillation_token, start.position_embeddings)

    def view(index: torch.Tensor, generator: torch.Generator, pad: int = 1) -> torch.Tensor:
        return common.normalise(common.augment(images[index], generator, pad))

    def teacher_loss(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return nn.functional.cross_entropy(teacher(view(index, generator, pad=2)), labels[index], label_smoothing=0.1)

    def teacher_accuracy() -> float:
        return common.accuracy(teacher, test_images, test_labels)

    schedule = common.Schedule(args.teacher_epochs, batch_size=256, lr=3e-3, warmup=0.2)
    teacher_minutes = common.fit(
        "teacher",
        teacher,
        common.equal_groups(teacher, schedule),
        teacher_loss,
        len(images),
        schedule,
        args.seed,
        args.workdir,
        after_epoch=lambda: {"test": teacher_accuracy()},
    )

    def student_loss(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = view(index, generator)
        with torch.no_grad():
            decision = teacher(pixels).argmax(-1)
        output = model(pixels)
        # the label is smoothed and the teacher's decision is not, as in the paper
        by_label = nn.functional.cross_entropy(output.cls_logits, labels[index], label_smoothing=0.1)
        by_teacher = nn.functional.cross_entropy(output.distillation_logits, decision)
        return 0.5 * by_label + 0.5 * by_teacher

    schedule = common.Schedule(args.epochs)
    minutes = common.fit(
        "distil",
        model,
        common.equal_groups(model, schedule),
        student_loss,
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
        objective="hard-label distillation from a convnet: half the label at the CLS head, half the teacher's decision "
        "at the distillation head",
        epochs={"teacher": args.teacher_epochs, "distil": args.epochs},
        steps=args.epochs * (len(images) // schedule.batch_size),
        minutes=round(teacher_minutes + minutes, 1),
        teacher_accuracy=teacher_accuracy(),
    )


if __name__ == "__main__":
    main()
