"""Train ``zoo/clip``: image-text contrastive learning, then a ridge head on the vision tower, on Fashion-MNIST.

CLIP (Radford et al. 2021, arXiv 2103.00020): in a batch each image picks its own caption out of all, and each
caption its own image. A caption is a template around a name of the class and a few attributes measured from the image
as the model sees it, so "left-facing" stays true under flips. Nobody else's caption counts as right, even one with the
same words, as in the paper. Image side: the CLS token after ``post_layernorm``; no patch token has a loss of its own.

Only the vision tower is exported, as ``CLIPForImageClassification``, whose head reads the patch mean of the last hidden
state without ``post_layernorm``; it is fitted by ridge regression.

    python experiments/zoo/train_clip.py --out clsinterp/zoo/clip
"""

import math

import common
import settling
import torch
from transformers import CLIPConfig, CLIPForImageClassification, CLIPModel

NAMES = {
    "t-shirt": ["t-shirt", "tee", "short-sleeved top"],
    "trouser": ["pair of trousers", "pair of pants", "pair of slacks"],
    "pullover": ["pullover", "jumper", "sweater"],
    "dress": ["dress", "gown", "frock"],
    "coat": ["coat", "overcoat", "jacket"],
    "sandal": ["sandal", "open shoe", "strappy shoe"],
    "shirt": ["shirt", "blouse", "buttoned shirt"],
    "sneaker": ["sneaker", "trainer", "running shoe"],
    "bag": ["bag", "handbag", "purse"],
    "ankle boot": ["ankle boot", "boot", "high shoe"],
}
TEMPLATES = [
    "a photo of a {}",
    "a picture of a {}",
    "a grey picture showing a {}",
    "an image of a {} on black",
    "a {} in a shop",
    "a product photo of a {}",
]
# measurement: (word below the lower tercile, word above the upper one); nothing is said about the middle
WORDS = {
    "brightness": ("dark", "bright"),
    "size": ("small", "large"),
    "aspect": ("tall", "wide"),
    "texture": ("plain", "patterned"),
    "asymmetry": ("symmetric", "asymmetric"),
    "side": ("left-facing", "right-facing"),
    "weight": ("top-heavy", "bottom-heavy"),
}
PAD, END, START = 0, 1, 2
LENGTH = 16


def vocabulary() -> dict[str, int]:
    """Every word a caption can hold -> its token, after the three special ones."""
    sentences = [
        *TEMPLATES,
        *(n for names in NAMES.values() for n in names),
        *(w for pair in WORDS.values() for w in pair),
    ]
    words = sorted({word for sentence in sentences for word in sentence.split()} - {"{}"})
    return {word: i + 3 for i, word in enumerate(words)}


TOKEN = vocabulary()
TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
CONFIG = CLIPConfig(
    text_config={
        **TOWER,
        "num_hidden_layers": 3,
        "vocab_size": len(TOKEN) + 3,
        "max_position_embeddings": LENGTH,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": START,
    },
    vision_config={**TOWER, "num_hidden_layers": 12, "image_size": common.SIDE, "patch_size": common.PATCH},
    projection_dim=64,
    **common.LABELS,
)


def tokenize(captions: list[str]) -> torch.Tensor:
    """Captions -> (n, 16) tokens, padded after the end token (attention is causal, so padding is never seen)."""
    ids = torch.full((len(captions), LENGTH), PAD)
    for row, caption in zip(ids, captions, strict=True):
        tokens = [START, *(TOKEN[word] for word in caption.split()), END]
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


def measure(gray: torch.Tensor) -> torch.Tensor:
    """(n, 28, 28) uint8 -> (n, 7), one column per key of `WORDS`."""
    x = gray.float() / 255
    on = (x > 0.1).float()
    columns, rows = on.amax(1), on.amax(2)  # the outline's shadow on both axes
    place = torch.linspace(-1, 1, common.SIDE)

    def centre(weight: torch.Tensor) -> torch.Tensor:
        return (weight * place).sum(1) / weight.sum(1).clamp(min=1e-6)

    # how far the light's centre is from the outline's: a shift of the image changes neither
    lean, sag = centre(x.sum(1)) - centre(columns), centre(x.sum(2)) - centre(rows)
    mass, area = x.sum((1, 2)), on.sum((1, 2)).clamp(min=1)
    edges = x.diff(dim=1).abs().sum((1, 2)) + x.diff(dim=2).abs().sum((1, 2))
    aspect = columns.sum(1) / rows.sum(1).clamp(min=1)
    return torch.stack([mass / area, area, aspect, edges / mass.clamp(min=1), lean.abs(), lean, sag], dim=1)


def describe(
    gray: torch.Tensor,
    labels: torch.Tensor,
    terciles: torch.Tensor,
    generator: torch.Generator,
    names: dict[str, list[str]] = NAMES,
    templates: list[str] = TEMPLATES,
) -> list[str]:
    """A caption for each image: random template, name and up to three of the attributes that stand out."""
    values = measure(gray)
    side = torch.where(values < terciles[0], 0, torch.where(values > terciles[1], 1, -1)).tolist()
    order = torch.rand(values.shape, generator=generator).argsort(1).tolist()
    count = torch.randint(1, 4, (len(gray),), generator=generator).tolist()
    template = torch.randint(len(templates), (len(gray),), generator=generator).tolist()
    name = torch.randint(len(names[common.CLASSES[0]]), (len(gray),), generator=generator).tolist()
    pairs = list(WORDS.values())
    captions = []
    for i, label in enumerate(labels.tolist()):
        adjectives = [pairs[k][side[i][k]] for k in order[i] if side[i][k] >= 0][: count[i]]
        thing = " ".join([*adjectives, names[common.CLASSES[label]][name[i]]])
        captions.append(templates[template[i]].format(thing))
    return captions


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    args = common.parse(parser)
    images, labels, test_images, test_labels = common.load(args)
    clip = CLIPModel(CONFIG)
    seen = common.augment(images, torch.Generator().manual_seed(args.seed))
    terciles = measure(seen[:10_000]).quantile(torch.tensor([1 / 3, 2 / 3]), dim=0)

    def loss_of(index: torch.Tensor, generator: torch.Generator, view: settling.View) -> torch.Tensor:
        gray = view(images[index], generator)
        captions = describe(gray, labels[index], terciles, generator)
        return clip(tokenize(captions), common.normalise(gray), return_loss=True).loss

    @torch.no_grad()
    def zero_shot() -> float:
        """Accuracy of the nearest of ten captions without attributes, as in the paper: no head is fitted."""
        classes = tokenize([TEMPLATES[0].format(NAMES[name][0]) for name in common.CLASSES])
        return common.accuracy(lambda x: clip(classes, x).logits_per_image, test_images, test_labels)

    @torch.no_grad()
    def bound_scale(step: int, total: int) -> None:
        clip.logit_scale.clamp_(max=math.log(100))

    schedule = common.Schedule(args.epochs)
    minutes = settling.fit(
        "contrast",
        clip,
        lambda plan: common.equal_groups(clip, plan),
        loss_of,
        len(images),
        schedule,
        args.seed,
        args.workdir,
        after_epoch=lambda: {"zero_shot": zero_shot()},
        after_step=bound_scale,
    )
    model = CLIPForImageClassification(CONFIG).eval()
    model.vision_model.load_state_dict(clip.vision_model.state_dict())
    alpha = common.fit_classifier(
        model, lambda pixels: model.vision_model(pixels).last_hidden_state[:, 1:].mean(1), images, labels
    )
    common.finish(
        model,
        args,
        test_images,
        test_labels,
        objective="image-text contrastive learning on captions of class names and measured attributes; ridge head on "
        "the patch mean of the last hidden state",
        epochs={"contrast": args.epochs, "settling": settling.SETTLING.epochs},
        words=len(TOKEN),
        zero_shot_accuracy=zero_shot(),
        ridge_alpha=alpha,
        steps=(args.epochs + settling.SETTLING.epochs) * (len(images) // schedule.batch_size),
        minutes=round(minutes, 1),
    )


if __name__ == "__main__":
    main()
