"""What the study of rereading found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, interval, name_of, runs, two
from clsinterp.studies.rereading.half import half_read
from clsinterp.studies.tidy import one


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: until where the CLS token can do without reading, from where it can, and the swap beside it."""
    cost = {c: by_layer(table, curve=f"knock_{c}", metric="cost") for c in ("until", "from", "patches_until")}
    swap = by_layer(table, curve="shuffle", metric="cost")
    free = {c: [layer for layer, row in rows.items() if row["ci_low"] <= 0] for c, rows in cost.items()}
    last = max(swap)
    intact = one(table, curve="intact", metric="accuracy", layer=None)
    never = cost["until"][last]
    parts = [
        f"On {name_of(table)} (intact {two(intact['value'])}) a CLS token that never reads costs {interval(never)}. "
        f"Reading nothing up to a layer costs nothing beyond its interval at {runs(free['until'])}, reading nothing from "
        f"one on at {runs(free['from'])}."
    ]
    half = half_read(table)
    if half is not None:
        early, late = half
        before, after, swapped = cost["until"][early], cost["from"][late], swap[early]
        parts.append(
            f" Half of it is lost without blocks 0 to {early} ({two(before['value'])}, where a swap at layer {early} costs "
            f"{two(swapped['value'])}), and without those from {late} on ({two(after['value'])})."
        )
    blind = cost["patches_until"][last]
    parts.append(f" Patches that never read the CLS token cost {interval(blind)}.")
    return "".join(parts)
