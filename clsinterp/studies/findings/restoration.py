"""What the study of restoration found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import above, by_layer, name_of, two
from clsinterp.studies.tidy import one


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: an early and a middle swap, probes of both kinds, one swap against many."""
    alone, every = by_layer(table, curve="at l alone"), by_layer(table, curve="at every layer up to l")
    last = max(alone)
    middle, soon = last // 2, min(2, last)

    def read(kind: str, layer: int, probed: int) -> dict:
        return one(table, curve=kind, layer=layer, probed_layer=probed)

    intact = one(table, curve="no shuffle", probed_layer=last)
    early, late = read("same probe", 0, last), read("same probe", middle, last)
    again, output = read("refitted probe", middle, last), alone[middle]
    most = every[middle]
    parts = [
        f"On {name_of(table)} the probe after the last block reads {two(intact['value'])} from intact tokens. After a swap at "
        f"layer 0 the intact tokens' probes read {two(read('same probe', 0, soon)['value'])} at layer {soon} and "
        f"{two(early['value'])} at the end; after one at layer {middle}, {two(late['value'])} at the end",
        ", where probes fitted again on swapped tokens find ",
        f"{two(again['value'])}",
        ": the label does come back, in a format that the intact tokens' probe does not read, and the output is right for "
        if above(again, late) else ". The output is right for ",
        f"{two(output['value'])} then. Swaps at every layer up to {middle} leave {two(most['value'])}",
        ", more than the one at that layer alone." if above(most, output) else
        ", less than the one at that layer alone." if above(output, most) else
        ", which the one at that layer alone does within the error, too.",
    ]  # fmt: skip
    return "".join(parts)
