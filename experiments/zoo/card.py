"""Measure a zoo checkpoint on the whole test split and write its model card, facts and figure beside the weights.

    python experiments/zoo/make_sample.py --whole --out fashion-mnist
    python experiments/zoo/card.py vit --data fashion-mnist --trained work/vit --out clsinterp/zoo
    python experiments/zoo/card.py vit --data fashion-mnist  # measures the one that ships again
    python experiments/zoo/card.py vit                       # measures nothing: writes the card from facts.json again

What is measured goes into ``facts.json``, and the card is a function of that file alone: tables, numbers and sentences
(``says.py``). A test compares the cards that ship with it.
"""

import argparse
import json
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from says import SAYS, Numbers, clip_text

from clsinterp.figures.files import save_figure
from clsinterp.figures.note import note_figure, published_curves
from clsinterp.runs.report import Report
from clsinterp.runs.request import Request
from clsinterp.runs.results import read_run
from clsinterp.runs.run import run
from clsinterp.runs.verdicts import Onset

ZOO = Path(__file__).parents[2] / "clsinterp" / "zoo"
SHIPPED = ("config.json", "model.safetensors", "preprocessor_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")  # of a checkpoint with a text tower
CURVES = ("probe", "shuffle", "shuffle_cls_only")
NAMES = {"vit": "ViT", "deit": "DeiT-distilled", "beit": "BEiT", "dinov2": "DINOv2", "clip": "CLIP"}
LINE = 120  # of a card, in characters


def measured(model: Path, data: Path, out: Path, head: str = "auto") -> tuple[dict[str, Any], Report, pa.Table]:
    """The note on the whole test split, probes from 1,000 training images per class: numbers, the run's report, curves."""
    request = Request(model=str(model), data=str(data), train_per_class=1000, head=head)
    folder = run(request, out, resume=out.exists())
    report, curves = read_run(folder)
    accuracy: dict[str, dict[int | None, float]] = {}
    for row in curves.to_pylist():
        if row["metric"] == "accuracy" and row["probed_layer"] is None:
            accuracy.setdefault(row["curve"], {})[row["layer"]] = round(row["value"], 4)
    assert len(pq.read_table(folder / "images.parquet")) == 10_000
    numbers = {
        "onsets": {name: onset.to_json() for name, onset in report.onsets.items()},
        "floors": report.facts.floors,
        "cls_only": report.identity.request.cls_only,
        "intact": {name: accuracy[name][None] for name in ("intact", "intact_cls_only") if name in accuracy},
        "curves": {name: [accuracy[name][layer] for layer in range(12)] for name in CURVES if name in accuracy},
    }
    return numbers, report, curves


def table(columns: dict[str, list[float]]) -> str:
    """Markdown: a row per layer, a column per curve."""
    names = list(columns)
    lines = ["| layer | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for layer in range(12):
        cells = [f"{columns[name][layer]:.3f}" for name in names]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def card(name: str, facts: dict[str, Any]) -> str:
    """The model card, from what ``facts.json`` holds."""
    published, found = published_curves()["curves"][name], facts["measured"]
    curves, recipes = found["curves"], found.get("recipes", {})
    columns = {curve.replace("_", " "): values for curve, values in curves.items()}
    columns |= {f"published {curve.replace('_', ' ')}": published[curve] for curve in CURVES if curve in published}
    onset = {key: Onset.of_json(value) for key, value in found["onsets"].items()}
    never = onset["used_from"].layer is None
    used = "no swap costs half of what it could" if never else f"used from layer {onset['used_from']}"
    says = SAYS[name](Numbers(found["intact"], curves, onset["used_from"].layer, found["cls_only"], recipes, published))
    shown = textwrap.fill(says, LINE, break_long_words=False, break_on_hyphens=False)
    epochs = ", ".join(f"{n} ({stage})" for stage, n in facts["epochs"].items())
    parts = [
        f"""---
license: mit
library_name: transformers
---
# zoo/{name}

A {NAMES[name]} classifier of 12 blocks, width 64, on 28-pixel Fashion-MNIST in 7 x 7 patches of 4, trained from scratch
for the `clsinterp` package by `experiments/zoo/train_{name}.py`. Opens in plain `transformers`. float16 on disk.

| | |
|---|---|
| objective | {facts["objective"]} |
| data | Fashion-MNIST, {facts["train_images"]} training images (MIT; Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747) |
| epochs | {epochs}; {facts["steps"]} steps |
| time | {facts["minutes"]} minutes on a 2-core server shared with other work |
| seed | {facts["seed"]} |
| test accuracy | **{facts["test_accuracy"]:.4f}** on the 10,000 test images |

## What it shows

{shown}

Whole test split, probes from 1,000 training images per class, swap mode `permute`, batches of 128. The label is decodable
from layer {onset["decodable_from"]} and {used}, with 95%
bootstrap intervals where they are more than the layer itself:
the first layer whose probe is halfway between the most frequent label and the best probe, and the first whose swap costs half
of what stands above an output that follows the donor (`docs/method.md`).
Published: `{published_curves()["checkpoints"][name]}` on ImageNet-1k, another task with 1,000 classes.

{table(columns)}
"""
    ]
    if recipes:
        shipped = {
            "objective": facts["objective"],
            "minutes": facts["minutes"],
            "test_accuracy": facts["test_accuracy"],
        }
        tried = {facts["recipe"]: {**shipped, "shuffle": curves["shuffle"]}, **recipes}
        listed = "\n".join(
            f"- `{recipe}`: {f['objective']}; {f['minutes']} minutes; test accuracy {f['test_accuracy']:.4f}."
            for recipe, f in tried.items()
        )
        parts.append(
            f"""
## Other recipes tried

Accuracy after the swap by layer, for every recipe tried; `{facts["recipe"]}` ships.

{listed}

{table({recipe: f["shuffle"] for recipe, f in tried.items()})}
"""
        )
    if "text" in facts:
        parts.append(text_section(name, facts["text"]))
    parts.append("\n![Availability and use, whole test split](curves.png)\n")
    return "".join(parts)


def text_section(name: str, text: dict[str, Any]) -> str:
    """What the card says of a text tower: how it was made, and the curves of the model that reads class names."""
    found = text["measured"]
    used = found["onsets"]["used_from"]["layer"]
    says = clip_text(Numbers(found["intact"], found["curves"], used, found["cls_only"], {}, {}))
    shown = textwrap.fill(says, LINE, break_long_words=False, break_on_hyphens=False)
    return f"""
## Read as CLIP is used

`VisionModel("zoo/{name}", classes=[...])` and `--head text` read the CLS token after `post_layernorm`, through
`visual_projection`, against class names. The text tower that reads them was trained by
`experiments/zoo/train_{name}_text.py` after the vision tower, which it left as it is.

| | |
|---|---|
| objective | {text["objective"]} |
| text tower | 3 blocks, width 64; byte-level BPE of {text["words"]} tokens learned on the captions |
| epochs | {text["epochs"]}; {text["steps"]} steps |
| time | {text["minutes"]} minutes on one core |
| seed | {text["seed"]} |
| zero-shot accuracy | **{text["zero_shot_accuracy"]:.4f}** of the 10,000 test images, names in the package's templates |

Zero-shot as to the head only: captions with these names were what both towers were trained on.

{shown}

{table(found["curves"])}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument(
        "--data", type=Path, help="the whole of Fashion-MNIST as parquet; without it nothing is measured"
    )
    parser.add_argument(
        "--trained", type=Path, help="a folder just trained, its facts in TRAINED.work; default what ships"
    )
    parser.add_argument("--text", type=Path, help="its folder once a text tower was trained in it")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="another trained folder to report")
    parser.add_argument("--runs", type=Path, default=Path("runs/cards"), help="where the run of the note goes")
    parser.add_argument("--out", type=Path, default=ZOO, help="the checkpoint goes to OUT/NAME")
    args = parser.parse_args()
    out = args.out / args.name
    out.mkdir(parents=True, exist_ok=True)
    if args.data is None:
        (out / "README.md").write_text(card(args.name, json.loads((out / "facts.json").read_text())))
        return

    def trained(folder: Path) -> dict[str, Any]:
        return json.loads((folder.with_name(folder.name + ".work") / "facts.json").read_text())

    before = json.loads((out / "facts.json").read_text()) if (out / "facts.json").exists() else {}
    facts = trained(args.trained) if args.trained else before
    numbers, report, curves = measured(args.trained or out, args.data, args.runs / f"{args.name}.note")
    recipes = before.get("measured", {}).get("recipes", {})
    for folder in args.recipe:
        other, found = trained(folder), measured(folder, args.data, args.runs / f"{folder.name}.note")[0]
        kept = {key: other[key] for key in ("objective", "minutes", "test_accuracy")}
        recipes[other["recipe"]] = {**kept, "shuffle": found["curves"]["shuffle"]}
    for file in SHIPPED if args.trained else ():
        # not copy: safetensors are written readable by their owner alone
        shutil.copyfile(args.trained / file, out / file)
    for file in (*SHIPPED, *TOKENIZER) if args.text else ():
        shutil.copyfile(args.text / file, out / file)
    if args.text:
        facts["text"] = trained(args.text)
    if "text" in facts:
        facts["text"]["measured"], _, _ = measured(args.text or out, args.data, args.runs / f"{args.name}.text", "text")
    facts["measured"] = numbers | ({"recipes": recipes} if recipes else {})
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    figure = note_figure([(replace(report.facts, model=f"zoo/{args.name}"), curves)])
    save_figure([figure], out / "curves.png")
    (out / "README.md").write_text(card(args.name, facts))
    print(f"{out}: intact {numbers['intact']['intact']:.4f}, card {facts['test_accuracy']:.4f}")


if __name__ == "__main__":
    main()
