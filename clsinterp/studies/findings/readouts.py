"""What the study of read-outs found."""

import re
from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, listed, name_of, runs, span, two
from clsinterp.studies.tidy import pick

KINDS = {"intact": "intact", "constant": "constant", "learned constant": "learned constant", "gaussian": "Gaussian",
         "generator": "generator", "augment": "augmented"}  # fmt: skip


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table, and of its note that gives the generators' loss by epoch."""
    curves = {kind: by_layer(table, curve=kind) for kind in KINDS}
    value = {kind: {i: row["value"] for i, row in rows.items()} for kind, rows in curves.items()}
    later = {kind: [row for i, row in rows.items() if i > 0] for kind, rows in curves.items()}
    layers = list(value["generator"])
    below = [i for i in layers if value["generator"][i] < min(value["constant"][i], value["gaussian"][i])]
    over = [i for i in layers if value["generator"][i] > max(value["constant"][i], value["gaussian"][i])]
    between = [i for i in layers if i not in below and i not in over]
    places = [f"{where} at {runs(found, 'block')}" for where, found in
              (("below both", below), ("between the two", between), ("above both", over)) if found]  # fmt: skip
    best = {kind: max(row["value"] for row in pick(table, curve=f"average, {kind}")) for kind in KINDS}
    averages = [f"{two(best[kind])} against {two(value[kind][max(layers)])} ({name})" for kind, name in KINDS.items()]
    parts = [
        f"On {name_of(table)}, from block 1 on, read-outs with the intact CLS token get {span(later['intact'])}, with a constant "
        f"one {span(later['constant'])} ({span(later['learned constant'])} where it is learned), with samples of the Gaussian "
        f"{span(later['gaussian'])}, with the generator's {span(later['generator'])}, and {span(later['augment'])} where its "
        f"token stands beside the CLS token. The generator's lie {listed(places)}",
        _loss(notes),
        f". The best average of the last read-outs against the last alone: {listed(averages)}.",
        _calibration(table),
    ]
    return "".join(parts)


def _calibration(table: pa.Table) -> str:
    """What the calibrated samples of the last block say, where there are any."""
    agrees = by_layer(table, curve="agreement")
    if not agrees:
        return ""
    last = max(agrees)
    error = {name: by_layer(table, curve=f"ece, {name}")[last]["value"] for name in ("counts", "mean answer")}
    (model,) = pick(table, curve="ece, model")
    right = by_layer(table, curve="calibrated")[last]
    groups = pick(table, curve="agreement by entropy", layer=last)
    return (
        f" Samples trained towards the model's own distribution say what it says for {two(agrees[0]['value'])} of the draws in "
        f"block 0 and for {two(agrees[last]['value'])} in block {last}, where their mean answer is right for "
        f"{two(right['value'])} of the images; by the entropy of their counts, from the least fifth of images to the largest, "
        f"the share goes from {two(groups[0]['value'])} to {two(groups[-1]['value'])}. Their calibration error is "
        f"{two(error['counts'])} by counts and {two(error['mean answer'])} by the mean answer, the model's own "
        f"{two(model['value'])}."
    )


def _loss(notes: Sequence[str]) -> str:
    for note in notes:
        if found := re.match(r"loss by epoch, generator: (.+)", note):
            losses = [float(x) for x in found[1].split(", ")]
            if len(losses) > 1 and losses[-1] < losses[-2]:
                return f"; their loss still falls when training stops ({losses[-2]} and {losses[-1]} in the last two epochs)"
    return ""
