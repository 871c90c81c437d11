"""What the study of donors found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, interval, listed, two
from clsinterp.studies.tidy import one, pick

READOUTS = {"cls alone": "CLS", "distill alone": "distillation", "patch_mean alone": "patch-mean"}


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: every model's gap and crossing, and whom its single read-outs follow in the middle."""
    gaps = sorted(pick(table, curve="gap"), key=lambda row: row["value"])
    text = listed([f"`{row['model']}` {interval(row)}" for row in gaps])
    parts = [f"The gap between what can be read and what is used, without chance hits: {text}."]
    crossings = {row["model"]: row for row in pick(table, curve="crossing")}
    crossing = [f"that of `{m}` from layer {row['value']:.1f} on" for m, row in crossings.items()]
    others = [f"`{row['model']}`" for row in gaps if row["model"] not in crossings]
    if others:
        crossing.append(f"that of {listed(others)} nowhere")
    parts.append(f" The output follows the donor rather than the host, {listed(crossing)}.")
    return "".join([*parts, *(_readouts(table, row["model"]) for row in gaps)])


def _readouts(table: pa.Table, model: str) -> str:
    """How many outputs name the donor after a swap at the middle layer, read-out by read-out."""
    output = by_layer(table, model=model, curve="use", readout="output", pairs=None)
    layer = max(output) // 2
    named = []
    for readout, name in READOUTS.items():
        if rows := by_layer(table, model=model, curve="use", readout=readout, pairs=None):
            named.append(f"its {name} read-out alone for {two(rows[layer]['value'])}")
    if not named:
        return ""
    whole = one(table, model=model, curve="use", readout="output", layer=layer, pairs=None)
    return (
        f" After a swap at layer {layer}, `{model}` names the donor's label for {two(whole['value'])} of the images, "
        f"{listed(named)}."
    )
