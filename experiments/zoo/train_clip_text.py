"""Train a text tower for ``zoo/clip``, whose vision tower stays as it ships, on Fashion-MNIST.

``train_clip.py`` trained both towers and exported one. Here the other is trained again to match it: the vision tower is
frozen to the last bit, and the text tower, both projections and the temperature learn CLIP's objective (Radford et al.
2021, arXiv 2103.00020) on captions of names and measured attributes, made as there. Names of the classes as the data
spell them and the package's own prompt templates are among the captions.

The tokenizer is a byte-level BPE learned on those captions, so it takes any name; names that are in no caption come in
pieces of a few letters that mean little to so small a tower.

    cp -r clsinterp/zoo/clip work/clip-text
    python experiments/zoo/train_clip_text.py --out work/clip-text
    python experiments/zoo/card.py clip --data fashion-mnist --text work/clip-text --out clsinterp/zoo

``OUT`` must hold the finished vision tower; its ``model.safetensors`` gains the text tower's weights, and opens in plain
`transformers` as ``CLIPModel`` and as ``CLIPForImageClassification``.
"""

import json
import math
from typing import Any

import common
import torch
import train_clip
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clsinterp.models.prompts import TEMPLATES as PROMPTS

NAMES = {label: [label, *names] for label, names in train_clip.NAMES.items()}
TEMPLATES = [*train_clip.TEMPLATES, *PROMPTS]
LENGTH = 32
VOCABULARY = 768  # 512 single bytes, within a word and at its end; the rest are merges
START, END = "<|startoftext|>", "<|endoftext|>"
RATE = common.Schedule(6, batch_size=128, weight_decay=0.2)


def every_sentence() -> list[str]:
    """Each name in each template, alone and after each attribute."""
    words = ["", *(word + " " for pair in train_clip.WORDS.values() for word in pair)]
    names = [name for several in NAMES.values() for name in several]
    return [template.format(word + name) for template in TEMPLATES for name in names for word in words]


def learn_tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer with a vocabulary learned on the captions."""
    empty = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = empty.backend_tokenizer.normalizer, empty.backend_tokenizer.pre_tokenizer
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(every_sentence(), trainer)
    learned = json.loads(bpe.to_str())["model"]
    pieces = dict.fromkeys([*sorted(letters), *(f"{letter}</w>" for letter in sorted(letters))])
    pieces |= dict.fromkeys(learned["vocab"])
    vocabulary = {piece: i for i, piece in enumerate([*pieces, START, END])}
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH)


def text_config(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """How the text tower is built."""
    return {
        **train_clip.TOWER,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@torch.no_grad()
def embeddings(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """The vision tower's pooled CLS token of (n, 28, 28) images, (n, 64)."""
    parts = images.split(500)
    return torch.cat([model.vision_model(common.normalise(part)).pooler_output for part in parts])


def zero_shot(model: CLIPModel, tokenizer: CLIPTokenizer, pooled: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy of the nearest class, each the mean of its name in the package's templates; no head is fitted."""
    with torch.no_grad():
        classes = []
        for name in common.CLASSES:
            tokens = tokenizer([t.format(name) for t in PROMPTS], padding=True, return_tensors="pt")
            classes.append(F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1).mean(0))
        answers = (model.visual_projection(pooled) @ F.normalize(torch.stack(classes), dim=-1).T).argmax(-1)
    return float((answers == labels).double().mean())


def main() -> None:
    options = common.parser(__doc__)
    options.add_argument("--epochs", type=int, default=RATE.epochs)
    args = common.parse(options)
    images, labels, test_images, test_labels = common.load(args)
    shipped = load_file(args.out / "model.safetensors")
    tokenizer = learn_tokenizer()
    vision = CLIPConfig.from_pretrained(args.out).vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=text_config(tokenizer), vision_config=vision, projection_dim=64))
    kept = {name: value for name, value in shipped.items() if name.startswith(("vision_model.", "classifier."))}
    tower = {n.removeprefix("vision_model."): v for n, v in kept.items() if n.startswith("vision_model.")}
    clip.vision_model.load_state_dict(tower)
    clip.vision_model.requires_grad_(False)
    views = [images, images.flip(-1)]
    pooled = torch.stack([embeddings(clip, view) for view in views])
    test_pooled = embeddings(clip, test_images)
    terciles = train_clip.measure(images[:10_000]).quantile(torch.tensor([1 / 3, 2 / 3]), dim=0)

    def loss_of(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        side = torch.randint(2, (len(index),), generator=generator)
        seen = torch.where(side.bool()[:, None, None], views[1][index], views[0][index])
        captions = train_clip.describe(seen, labels[index], terciles, generator, NAMES, TEMPLATES)
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        texts = F.normalize(clip.get_text_features(**tokens).pooler_output, dim=-1)
        seen_as = F.normalize(clip.visual_projection(pooled[side, index]), dim=-1)
        logits = seen_as @ texts.T * clip.logit_scale.exp()
        own = torch.arange(len(index))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    @torch.no_grad()
    def bound_scale(step: int, total: int) -> None:
        clip.logit_scale.clamp_(max=math.log(100))

    plan = common.Schedule(args.epochs, RATE.batch_size, RATE.lr, RATE.weight_decay)
    minutes = common.fit(
        "text",
        clip,
        common.equal_groups(clip, plan),
        loss_of,
        len(images),
        plan,
        args.seed,
        args.workdir,
        after_epoch=lambda: {"zero_shot": zero_shot(clip, tokenizer, test_pooled, test_labels)},
        after_step=bound_scale,
    )
    text = {name: v.half() for name, v in clip.state_dict().items() if not name.startswith("vision_model.")}
    text = {name: v for name, v in text.items() if not name.endswith("position_ids")}
    save_file({**kept, **text}, args.out / "model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = json.loads((args.out / "config.json").read_text())
    config["architectures"] = ["CLIPForImageClassification", "CLIPModel"]
    config["text_config"] |= text_config(tokenizer)
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(args.out)
    loaded, info = CLIPModel.from_pretrained(args.out, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"] or set(info["unexpected_keys"]) != {n for n in kept if n.startswith("classifier.")}:
        raise RuntimeError(f"{args.out} does not load cleanly into CLIPModel: {info}")
    read = CLIPTokenizer.from_pretrained(args.out)
    facts = {
        "objective": "image-text contrastive learning with the vision tower frozen",
        "epochs": args.epochs,
        "steps": args.epochs * (len(images) // plan.batch_size),
        "minutes": round(minutes, 1),
        "seed": args.seed,
        "words": len(tokenizer),
        "test_images": len(test_images),
        "zero_shot_accuracy": round(zero_shot(loaded.eval(), read, test_pooled, test_labels), 4),
    }
    (args.workdir / "facts.json").write_text(json.dumps(facts, indent=1))
    print(facts)


if __name__ == "__main__":
    main()
