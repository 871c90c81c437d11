"""What the study of used subspaces found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import Row, by_layer, name_of, runs, span, two
from clsinterp.studies.subspace.bases import PLAIN, WHITENED
from clsinterp.studies.subspace.used import ENOUGH
from clsinterp.studies.tidy import one

PARTS = {
    "swap_probe_subspace": "the probe's row space", "swap_complement": "everything but it",
    "swap_leace": "LEACE's component", "swap_random_subspace": "random subspaces of that rank",
}  # fmt: skip


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table: what the parts of a token do in the middle, and how many directions do what all do."""
    rates = {name: by_layer(table, curve=name, measure="donor", draw=None) for name in ("shuffle", *PARTS)}
    layers = list(rates["shuffle"])
    nothing = one(table, curve="intact", measure="donor")["value"]
    ends = [_parts(rates, by_layer(table, curve="row_space_rank"), layer) for layer in (max(layers) // 2, max(layers))]
    rank = by_layer(table, curve="row_space_rank")[max(layers) // 2]["value"]
    text = f"On {name_of(table)} {two(nothing)} of the outputs name the donor's label with nothing swapped. "
    ranks = "; ".join(_ranks(table, inner, layers, rank) for inner in (PLAIN, WHITENED))
    return text + "".join(f"{end}. " for end in ends) + f"{ranks}."


def _parts(rates: dict[str, dict[int, Row]], rank: dict[int, Row], layer: int) -> str:
    """How many outputs name the donor's label after swaps of the whole token and of its parts."""
    alone = ", ".join(f"{label} {two(rates[name][layer]['value'])}" for name, label in PARTS.items() if rates[name])
    return (
        f"A swap of the whole CLS token at layer {layer} makes that {two(rates['shuffle'][layer]['value'])}, one of its parts "
        f"({rank[layer]['value']:.0f} directions): {alone}"
    )


def _ranks(table: pa.Table, inner: str, layers: Sequence[int], rank: float) -> str:
    """How many directions are enough under one inner product, and what of it holds on other images."""
    found = {i: r for i, r in by_layer(table, curve="used_rank", inner=inner).items() if r["value"] is not None}
    name = f"{'Under the' if inner == PLAIN else 'under the'} {inner} inner product"
    if not found:
        return f"{name} there is no layer at which a smallest subspace can be named"
    least, most = min(r["value"] for r in found.values()), max(r["value"] for r in found.values())
    enough = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
    inside = [i for i, r in found.items() if r["value"] <= rank]
    held = by_layer(table, curve="used_share", inner=inner)
    short = [i for i in found if held[i]["ci_high"] < ENOUGH]
    where = (
        f"no more than the probe's row space has at {runs(inside)}" if inside else "more than the probe's row space has"
    )
    return (
        f"{name} the first {enough} directions have {ENOUGH:.0%} of the effect ({runs(sorted(found))}), {where}; on held-out "
        f"images they have {span(held[i] for i in found)} of it"
        + (f", surely less than {ENOUGH:.0%} at {runs(short)}" if short else "")
    )
