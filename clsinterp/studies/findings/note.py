"""What the note found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, first, interval, name_of, two
from clsinterp.studies.tidy import one


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of a table of curves, as a run writes it."""
    probe, swap, donor = (
        by_layer(table, curve=curve, metric="accuracy", probed_layer=None) for curve in ("probe", "shuffle", "donor")
    )
    intact = one(table, curve="intact", metric="accuracy")["value"]
    last = max(swap)
    half = first(swap, lambda i: swap[i]["value"] < intact / 2)
    behind = [i for i in swap if donor[i]["value"] <= swap[i]["value"]]
    follows = max(behind, default=-1) + 1
    parts = [
        f"On {name_of(table)} a probe reads the label from the CLS token at {interval(probe[0])} after block 0 and at "
        f"{interval(probe[last])} after block {last}. Untouched, the output is right for {two(intact)} of the images; with CLS "
        f"tokens swapped at layer 0 for {two(swap[0]['value'])}, at layer {last} for {two(swap[last]['value'])}",
        "." if half is None else f"; layer {half} is the first where less than half is left.",
        f" From layer {follows} on the output names the donor's label more often than the image's own."
        if follows <= last
        else " To the last layer the output names the image's own label more often than the donor's.",
    ]
    return "".join(parts)
