"""What the study of erasure found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import by_layer, interval, name_of, runs, span, two
from clsinterp.studies.tidy import one, pick


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: what the output loses without and with a wrong label, and where the label comes back."""
    curves = ("erased", "erased_at_random", "replaced_by_mean", "missing", "misled", "leftover")
    rows = {name: by_layer(table, curve=name) for name in curves}
    layers = list(rows["erased"])
    middle, last = max(layers) // 2, max(layers)
    floor, intact = one(table, curve="majority"), one(table, curve="intact")
    missing, misled = ([i for i in layers if rows[name][i]["ci_low"] > 0] for name in ("missing", "misled"))
    left = [i for i in layers if rows["leftover"][i]["ci_low"] > floor["value"]]
    parts = [
        f"On {name_of(table)} the output is right for {two(intact['value'])}; with the label erased at layer {middle} for "
        f"{interval(rows['erased'][middle])}, with the mean in the token's place for "
        f"{two(rows['replaced_by_mean'][middle]['value'])}, with as many random directions erased for "
        f"{span(rows['erased_at_random'].values())} at every layer. Without its label the output loses something at "
        f"{runs(missing)} (95%, paired), and a swapped token, which says a wrong one, costs more than that at {runs(misled)}: at "
        f"layer {middle} {two(rows['missing'][middle]['value'])} of the images are lost because the label is missing and "
        f"{two(rows['misled'][middle]['value'])} because the output is misled. "
    ]  # fmt: skip
    fresh = {(r["layer"], r["probed_layer"]): r for r in pick(table, curve="probe_after_erasure")}
    same = {(r["layer"], r["probed_layer"]): r for r in pick(table, curve="intact_probe_after_erasure")}
    parts.append(
        f"A fresh probe reads {span(fresh[i, i] for i in layers)} right after erasure (the most frequent label: "
        f"{two(floor['value'])})"
    )
    if last > 0:
        next_block = [fresh[i, i + 1] for i in layers if i < last]
        parts.append(
            f", {span(next_block)} one block later; erased at layer {middle} the label is read for "
            f"{two(fresh[middle, last]['value'])} at the end, by the intact tokens' probe for {two(same[middle, last]['value'])}"
        )
    parts.append(
        f". On new images more than the most frequent label can be read again from erased tokens at {runs(left)}."
    )
    return "".join(parts)
