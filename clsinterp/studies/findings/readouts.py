"""What the study of read-outs found."""

import re
from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, listed, name_of, runs, span, two
from clsinterp.studies.tidy import pick

KINDS = {"intact": "intact", "constant": "constant", "gaussian": "Gaussian", "generator": "generator"}


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
        f"one {span(later['constant'])}, with samples of the Gaussian {span(later['gaussian'])}, with the generator's "
        f"{span(later['generator'])}. The generator's lie {listed(places)}",
        _loss(notes),
        f". The best average of the last read-outs against the last alone: {listed(averages)}.",
    ]
    return "".join(parts)


def _loss(notes: Sequence[str]) -> str:
    for note in notes:
        if found := re.match(r"generators' loss by epoch: (.+)", note):
            losses = [float(x) for x in found[1].split(", ")]
            if len(losses) > 1 and losses[-1] < losses[-2]:
                return f"; their loss still falls when training stops ({losses[-2]} and {losses[-1]} in the last two epochs)"
    return ""
