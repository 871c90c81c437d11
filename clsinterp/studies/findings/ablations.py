"""What the study of ablations found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import above, by_layer, name_of, runs, two
from clsinterp.studies.tidy import one

NAMES = {"cls": "CLS token", "registers": "register tokens"}


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table, its first group of tokens."""
    group = next(row["group"] for row in table.to_pylist() if row["group"] is not None)
    left = {kind: by_layer(table, group=group, curve=kind) for kind in ("permute", "cross_label", "mean", "zero")}
    intact = one(table, curve="intact")["value"]
    layers = list(left["zero"])
    middle = max(layers) // 2
    cost = {kind: two(intact - left[kind][0]["value"]) for kind in left}
    at = {kind: two(left[kind][middle]["value"]) for kind in left}
    less = [i for i in layers if above(left["zero"][i], left["permute"][i])]
    more = [i for i in layers if above(left["permute"][i], left["zero"][i])]
    alike = [i for i in layers if i not in less and i not in more]
    harm = [i for i in layers if above(left["mean"][i], left["permute"][i])]
    return (
        f"On {name_of(table)} zeros in place of the {NAMES[group]} at layer 0 cost {cost['zero']} where the mean costs "
        f"{cost['mean']} and a permutation {cost['permute']}. A permutation leaves less than zeros do at {runs(less)}, more at "
        f"{runs(more)}; at {runs(alike)} their intervals meet. It leaves less than the mean, which misleads nobody, at "
        f"{runs(harm)}: at layer {middle} the mean leaves {at['mean']} and permuted tokens {at['permute']}, tokens of another "
        f"label {at['cross_label']}."
    )
