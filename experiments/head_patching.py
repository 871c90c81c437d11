"""Which heads carry the class from the patches to the CLS token?

Method. Pairs of test images of two classes that the model gets right, clean (first class) and corrupted (second). The
activations of the clean run are put into the corrupted one, place by place; the metric is the logit of the clean class
minus that of the corrupted one, scaled so that 0 is the corrupted run and 1 the clean one. First tokens of the residual
stream by layer, then attention heads (z), with the first-order estimate of the same sweep beside them; last, what the
strongest heads attend to.

    python experiments/head_patching.py [MODEL] --out runs/head_patching
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from clsinterp import VisionModel
from clsinterp.attention import cls_attention
from clsinterp.data import open_data
from clsinterp.figures import save_figure
from clsinterp.heatmaps import attention_figure, patching_figure, token_names
from clsinterp.patching import attribution_patch, logit_difference, patch_attn_head, patch_resid, recovered


def pairs(model: VisionModel, data: str, classes: list[str], n: int) -> tuple[list, list, torch.Tensor]:
    """Up to `n` images of each of two classes that the model gets right, and the two classes' numbers."""
    _, test = open_data(data)
    wanted = [test.class_names.index(name) for name in classes]
    numbers = torch.tensor([model.class_names.index(name) for name in classes])
    found = []
    for label, number in zip(wanted, numbers, strict=True):
        images = [test.image(i) for i in range(len(test)) if test.labels[i] == label]
        with torch.no_grad():
            right = (model(images).logits.argmax(-1) == number).nonzero().flatten().tolist()
        found.append([images[i] for i in right])
    n = min(n, *map(len, found))
    return found[0][:n], found[1][:n], numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="zoo/vit")
    parser.add_argument("--data", default="zoo")
    parser.add_argument("--classes", default="ankle boot,sandal", help="clean and corrupted class")
    parser.add_argument("--limit", type=int, default=32, help="pairs of images")
    parser.add_argument("--out", type=Path, default=Path("runs/head_patching"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    model = VisionModel(args.model)
    names = args.classes.split(",")
    clean, corrupted, (right, wrong) = pairs(model, args.data, names, args.limit)
    n = len(clean)
    with torch.no_grad():
        ends = model(clean).logits, model(corrupted).logits
    metric = recovered(logit_difference(right.expand(n), wrong.expand(n)), *ends)

    tokens = patch_resid(model, clean, corrupted, metric, "resid_pre")
    heads = patch_attn_head(model, clean, corrupted, metric, "z")
    estimate = attribution_patch(model, clean, corrupted, metric, "z")
    for name, table in (("tokens", tokens), ("heads", heads), ("heads_estimate", estimate)):
        pq.write_table(table, args.out / f"{name}.parquet")

    pair = f"{names[0]} into {names[1]}, {n} pairs"
    pixels = model.pixels(clean[0])
    with torch.no_grad():
        n_tokens = model.run_with_cache(pixels, "hook_full_embed")[1]["full_embed"].shape[1]
    figures = [
        patching_figure(heads, f"Heads, z patched: {pair} ({args.model})"),
        patching_figure(estimate, f"Heads, first-order estimate: {pair}"),
        patching_figure(tokens, f"Tokens, resid_pre patched: {pair}", token_names(model.layout, n_tokens)),
    ]
    best = sorted(heads.to_pylist(), key=lambda r: -r["value"])[:4]
    if model.family.has_cls:
        maps = cls_attention(model, clean[:1])[:, 0]
        shown = torch.stack([maps[r["layer"], r["head"]] for r in best])
        labels = [f"L{r['layer']}H{r['head']}" for r in best]
        figures.append(attention_figure(clean[0], shown, labels, "What the strongest heads' CLS query attends to"))
    save_figure(figures, args.out / "figure.html")

    result = Table("head", "recovered [95%]", "estimate", title=f"Strongest heads: {pair}")
    by_place = {(r["layer"], r["head"]): r["value"] for r in estimate.to_pylist()}
    for r in best:
        value = f"{r['value']:.3f} [{r['ci_low']:.3f}, {r['ci_high']:.3f}]"
        result.add_row(f"L{r['layer']}H{r['head']}", value, f"{by_place[r['layer'], r['head']]:.3f}")
    agreement = np.corrcoef(np.array(heads["value"]), np.array(estimate["value"]))[0, 1]
    Console().print(result, f"correlation of estimate and real patching over heads: {agreement:.2f}", sep="\n")
    Console().print(f"figure: {args.out / 'figure.html'}")


if __name__ == "__main__":
    main()
