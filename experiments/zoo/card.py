"""Measure a trained zoo checkpoint on the whole test split and write its model card, facts and figure beside the weights.

    python experiments/zoo/make_sample.py --whole --out fashion-mnist
    python experiments/zoo/card.py vit --data fashion-mnist --trained work/vit --out clsinterp/zoo

The card's numbers come from the files it names; what they say in words stands in ``says.json``.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from clsinterp.figures.files import save_figure
from clsinterp.figures.note import note_figure, published_curves
from clsinterp.runs.report import Report
from clsinterp.runs.request import Request
from clsinterp.runs.results import read_run
from clsinterp.runs.run import run

SHIPPED = ("config.json", "model.safetensors", "preprocessor_config.json")
CURVES = ("probe", "shuffle", "shuffle_cls_only")
NAMES = {"vit": "ViT", "deit": "DeiT-distilled", "beit": "BEiT", "dinov2": "DINOv2", "clip": "CLIP"}
SAYS = json.loads(Path(__file__).with_name("says.json").read_text())


def measured(model: Path, data: Path, out: Path) -> tuple[Report, dict[str, dict[int, float]], object]:
    """The note on the whole test split, probes from 1,000 training images per class: report, accuracies, curves."""
    request = Request(model=str(model), data=str(data), train_per_class=1000)
    folder = run(request, out, resume=out.exists())
    report, curves = read_run(folder)
    accuracy: dict[str, dict[int, float]] = {}
    for row in curves.to_pylist():
        if row["metric"] == "accuracy" and row["probed_layer"] is None:
            accuracy.setdefault(row["curve"], {})[row["layer"]] = row["value"]
    assert len(pq.read_table(folder / "images.parquet")) == 10_000
    return report, accuracy, curves


def table(columns: dict[str, dict[int, float]]) -> str:
    """Markdown: a row per layer, a column per curve."""
    names = list(columns)
    lines = ["| layer | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for layer in range(12):
        cells = [f"{columns[name][layer]:.3f}" if layer in columns[name] else "" for name in names]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def card(name: str, facts: dict, report: Report, accuracy: dict, recipes: dict[str, tuple[dict, dict]]) -> str:
    """The model card."""
    published = published_curves()["curves"][name]
    columns = {curve.replace("_", " "): accuracy[curve] for curve in CURVES if curve in accuracy}
    columns |= {
        f"published {curve.replace('_', ' ')}": dict(enumerate(published[curve]))
        for curve in CURVES
        if curve in published
    }
    onset = report.onsets
    late = onset["used_from"].layer is None
    used = "no swap costs half of what it could" if late else f"used from layer {onset['used_from']}"
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

{SAYS[name]}

Whole test split, probes from 1,000 training images per class, swap mode `permute`, batches of 128. The label is decodable
from layer {onset["decodable_from"]} and {used}, with 95%
bootstrap intervals where they are more than the layer itself:
the first layer whose probe reaches half of the best, and the first whose swap costs half of what stands above chance.
Published: `{published_curves()["checkpoints"][name]}` on ImageNet-1k, another task with 1,000 classes.

{table(columns)}
"""
    ]
    if recipes:
        chosen = {facts["recipe"]: accuracy["shuffle"]}
        shuffles = chosen | {recipe: acc["shuffle"] for recipe, (_, acc) in recipes.items()}
        scores = {facts["recipe"]: facts} | {recipe: f for recipe, (f, _) in recipes.items()}
        listed = "\n".join(
            f"- `{recipe}`: {f['objective']}; {f['minutes']} minutes; test accuracy {f['test_accuracy']:.4f}."
            for recipe, f in scores.items()
        )
        parts.append(
            f"""
## Other recipes tried

Accuracy after the swap by layer, for every recipe tried; `{facts["recipe"]}` ships.

{listed}

{table(shuffles)}
"""
        )
    parts.append("\n![Availability and use, whole test split](curves.png)\n")
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True, help="the whole of Fashion-MNIST as parquet")
    parser.add_argument("--trained", type=Path, required=True, help="the trained folder; its facts are in TRAINED.work")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="another trained folder to report")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint goes to OUT/NAME")
    args = parser.parse_args()
    out = args.out / args.name
    out.mkdir(parents=True, exist_ok=True)

    def look(folder: Path) -> tuple[dict, Report, dict, object]:
        facts = json.loads((folder.with_name(folder.name + ".work") / "facts.json").read_text())
        report, accuracy, curves = measured(folder, args.data, folder.with_name(folder.name + ".note"))
        return facts, report, accuracy, curves

    facts, report, accuracy, curves = look(args.trained)
    others = {}
    for folder in args.recipe:
        other, _, other_accuracy, _ = look(folder)
        others[other["recipe"]] = (other, other_accuracy)
    for file in SHIPPED:
        shutil.copyfile(
            args.trained / file, out / file
        )  # not copy: safetensors are written readable by their owner alone
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    figure = note_figure([(replace(report.facts, model=f"zoo/{args.name}"), curves)])
    save_figure([figure], out / "curves.png")
    (out / "README.md").write_text(card(args.name, facts, report, accuracy, others))
    print(f"{out}: intact {accuracy['intact'][None]:.4f}, card {facts['test_accuracy']:.4f}")


if __name__ == "__main__":
    main()
