"""What the study of rereading found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import Row, by_layer, interval, name_of, runs, two
from clsinterp.studies.rereading.half import half_read
from clsinterp.studies.tidy import one


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: until where the CLS token can do without reading, from where it can, and the swap beside it."""
    cost = {c: by_layer(table, curve=f"knock_{c}", metric="cost") for c in ("until", "from", "patches_until")}
    swap = by_layer(table, curve="shuffle", metric="cost")
    last = max(swap)
    intact = one(table, curve="intact", metric="accuracy", layer=None)
    never = cost["until"][last]
    parts = [
        f"On {name_of(table)} (intact {two(intact['value'])}) a CLS token that never reads costs {interval(never)}. "
        f"Reading nothing up to a layer {_free(cost['until'])}; reading nothing from a layer on {_free(cost['from'])}."
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


def _free(cost: dict[int, Row]) -> str:
    """At which layers a knock-out costs nothing."""
    free = [layer for layer, row in cost.items() if row["ci_low"] <= 0]
    return f"costs nothing beyond its interval at {runs(free)}" if free else "costs something at every layer"
