"""What the study of heads found."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, interval, listed, name_of, two
from clsinterp.studies.tidy import pick

STRONGEST = 4


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table."""
    heads, estimate = pick(table, curve="heads"), pick(table, curve="heads, first-order")
    best = sorted(heads, key=lambda row: -row["value"])[:STRONGEST]
    alike = np.corrcoef([row["value"] for row in heads], [row["value"] for row in estimate])[0, 1]
    parts = [f"On {name_of(table)} ({heads[0]['n']} pairs, {heads[0]['clean']} into {heads[0]['corrupted']}) "]
    cls = by_layer(table, curve="tokens", place="CLS")
    shown = [layer for layer in (2, 4, 6) if layer in cls]
    if shown:
        rest = max((row for row in pick(table, curve="tokens") if row["place"] != "CLS"), key=lambda row: row["value"])
        parts.append(
            "the CLS token alone recovers of the difference "
            + listed([f"{two(cls[layer]['value'])} when patched before block {layer}" for layer in shown])
            + f"; no other token recovers more than {two(rest['value'])} anywhere. The"
        )
    else:
        parts.append("the")
    parts.append(f" strongest heads are {listed([row['place'] + ' with ' + interval(row) for row in best])}.")
    parts.append(f" The first-order estimate and the real sweep have a correlation of {alike:.2f} over heads.")
    return "".join(parts)
