"""What the study of rereading found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.figures.knock import half_said
from clsinterp.studies.findings.words import Row, by_layer, interval, name_of, runs, two
from clsinterp.studies.tidy import one, pick


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: what never reading costs and how much of it is information, until where the CLS token can do
    without reading, from where it can, and the swap beside it."""
    knocks, means, sinks = (
        {what: by_layer(table, curve=f"{kind}_{what}", metric="cost") for what in ("until", "patches_until")}
        for kind in ("knock", "mean_kv", "sink")
    )
    since, swap = (by_layer(table, curve=curve, metric="cost") for curve in ("knock_from", "shuffle"))
    last = max(swap)
    intact = one(table, curve="intact", metric="accuracy", layer=None)

    def never(what: str) -> str:
        """What it costs; and with a place to attend to, which tables from before that control do not have."""
        said = interval(knocks[what][last])
        if not sinks[what]:
            return said
        mean, sink = means[what][last], sinks[what][last]
        return f"{said}, and {interval(mean)} where the mean over images is read in its place (difference {interval(sink)})"

    parts = [
        f"On {name_of(table)} (intact {two(intact['value'])}) a CLS token that never reads costs {never('until')}. "
        f"Reading nothing up to a layer {_free(knocks['until'])}; reading nothing from a layer on {_free(since)}."
    ]
    half = [row for curve in ("until", "from") for row in pick(table, curve=f"half_read_{curve}")]
    if half:
        early, late = (int(row["value"]) for row in half)
        before, after, swapped = knocks["until"][early], since[late], swap[early]
        parts.append(
            f" Half of it is lost without blocks 0 to {half_said(half[0])} ({two(before['value'])}, where a swap at layer "
            f"{early} costs {two(swapped['value'])}), and without those from {half_said(half[1])} on ({two(after['value'])})."
        )
    parts.append(f" Patches that never read the CLS token cost {never('patches_until')}.")
    if sinks["until"]:
        parts.append(" What a knock-out costs more than that is no information but the loss of a place to attend to.")
    return "".join(parts)


def _free(cost: dict[int, Row]) -> str:
    """At which layers a knock-out costs nothing."""
    free = [layer for layer, row in cost.items() if row["ci_low"] <= 0]
    return f"costs nothing beyond its interval at {runs(free)}" if free else "costs something at every layer"
