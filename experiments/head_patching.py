"""Which heads carry the class from the patches to the CLS token?

Method. Pairs of test images of two classes that the model gets right, clean (first class) and corrupted (second). The
activations of the clean run are put into the corrupted one, place by place; the metric is the logit of the clean class
minus that of the corrupted one, counted from the same image's corrupted run in units of what clean runs gain on average, so
0 is the corrupted run and 1 the clean one. First tokens of the residual
stream by layer, then attention heads (z), with the first-order estimate of the same sweep beside them; last, what the
strongest heads attend to.

The estimate is attribution patching (Nanda 2023); the question put to these models is ours, no paper's.

    python experiments/head_patching.py zoo/vit --data zoo --out runs/head_patching
"""

import numpy as np
import pyarrow as pa
import torch

from clsinterp.errors import RequestError
from clsinterp.figures.heatmaps import attention_figure, patching_figure
from clsinterp.hooks.attention import cls_attention
from clsinterp.studies.command import Findings, study
from clsinterp.studies.head_patching.figure import heads_figure
from clsinterp.studies.setup import Setup
from clsinterp.sweeps.patching import attribution_patch, logit_difference, patch_attn_head, patch_resid, recovered


def pairs(setup: Setup, names: list[str], n: int) -> tuple[list, list, torch.Tensor]:
    """Up to `n` test images of each of two classes that the model gets right, and the two classes' numbers."""
    test, found = setup.test, []
    if len(set(names) & set(test.class_names)) != 2 or len(names) != 2:
        raise RequestError(f"--classes {','.join(names)} was given; two of {', '.join(test.class_names)} are expected.")
    if setup.match.how == "fit":
        raise RequestError(
            "the checkpoint's own classifier does not fit the data; patching through a fitted one is not done."
        )
    wanted = [test.class_names.index(name) for name in names]
    numbers = torch.tensor([setup.match.classes[label] for label in wanted])
    for label, number in zip(wanted, numbers, strict=True):
        images = [test.image(i) for i in range(len(test)) if test.labels[i] == label]
        with torch.no_grad():
            right = (setup.model(images).logits.argmax(-1).cpu() == number).nonzero().flatten() if images else []
        found.append([images[i] for i in right])
    if not (n := min(n, *map(len, found))):
        raise RequestError(
            f"the model gets no test image of {names[0]!r} or of {names[1]!r} right; name others with --classes."
        )
    return found[0][:n], found[1][:n], numbers


@study(options={"--classes": {"default": "ankle boot,sandal", "help": "clean and corrupted class"},
                "--pairs": {"type": int, "default": 32, "help": "pairs of images"}})  # fmt: skip
def main(setup: Setup, args) -> Findings:
    model, names = setup.model, args.classes.split(",")
    clean, corrupted, (right, wrong) = pairs(setup, names, args.pairs)
    n, facts = len(clean), {**setup.facts(), "clean": names[0], "corrupted": names[1]}
    with torch.no_grad():
        ends = model(clean).logits, model(corrupted).logits
    metric = recovered(logit_difference(right.expand(n), wrong.expand(n)), *ends)

    tokens = patch_resid(model, clean, corrupted, metric, "resid_pre")
    heads = patch_attn_head(model, clean, corrupted, metric, "z")
    estimate = attribution_patch(model, clean, corrupted, metric, "z")
    pair = f"{names[0]} into {names[1]}, {n} pairs"
    pixels = model.pixels(clean[0])
    with torch.no_grad():
        n_tokens = model.run_with_cache(pixels, "hook_full_embed")[1]["full_embed"].shape[1]
    token_names = model.layout.names(n_tokens)

    def place(row: dict) -> str:
        return f"L{row['layer']}H{row['head']}" if row["token"] is None else token_names[row["token"]]

    curves = {"tokens": tokens, "heads": heads, "heads, first-order": estimate}
    rows = [
        {**facts, "curve": c, "place": place(row), **row} for c, found in curves.items() for row in found.to_pylist()
    ]
    table = pa.Table.from_pylist(rows)
    figures = [
        heads_figure(table, setup),
        patching_figure(tokens, f"Tokens, resid_pre patched: {pair}", token_names, metric="recovered"),
        patching_figure(estimate, f"Heads, first-order estimate: {pair}", metric="recovered"),
    ]

    best = sorted(heads.to_pylist(), key=lambda r: -r["value"])[:4]
    if model.family.has_cls:
        maps = cls_attention(model, clean[:1])[:, 0]
        shown = torch.stack([maps[r["layer"], r["head"]] for r in best])
        labels = [place(r) for r in best]
        figures.append(attention_figure(clean[0], shown, labels, "What the strongest heads' CLS query attends to"))

    by_place = {(r["layer"], r["head"]): r["value"] for r in estimate.to_pylist()}
    summary = [
        {"head": place(r), "recovered": r["value"], "ci_low": r["ci_low"], "ci_high": r["ci_high"],
         "estimate": by_place[r["layer"], r["head"]]}
        for r in best
    ]  # fmt: skip
    alike = np.corrcoef(np.array(heads["value"]), np.array(estimate["value"]))[0, 1]
    notes = (pair, f"correlation of estimate and real patching over heads: {alike:.2f}")
    return Findings(pa.Table.from_pylist(summary), figures, {"head_patching": table}, notes)


if __name__ == "__main__":
    main()
