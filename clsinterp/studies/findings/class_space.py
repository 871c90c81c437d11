"""What the study of class embedding space found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.class_space.cuts import ANOTHER, area
from clsinterp.studies.findings.words import by_layer, listed, name_of, span, two

ONE_PIECE = "chance in one piece"


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table."""
    parts = [f"On {name_of(table)} "]
    risen = []
    for part, name in (("cls", "of the CLS token"), ("patches", "of patches")):
        rows = by_layer(table, curve=f"identifiability, {part}", control="trained")
        if rows:
            twin = by_layer(table, curve=f"identifiability, {part}", control="random twin").values()
            ends = " to ".join(two(rows[i]["value"]) for i in (0, max(rows)))
            risen.append(f"{name} from {ends} (random twin: {span(twin)})")
    parts.append(f"identifiability goes, from the first block to the last: {listed(risen)}. ")
    parts.append(_rates(table))
    probes, lens = (by_layer(table, curve=c, control="trained") for c in ("per-token probe", "lens at the same tokens"))
    parts.append(
        f"Probes fitted per token read {span(probes.values())}, the lens at the same tokens {span(lens.values())}"
    )
    unread = all(probes[i]["ci_low"] > lens[i]["ci_high"] for i in probes)
    parts.append(": it misses what is there in another basis. " if unread else ". ")
    values = [by_layer(table, curve="class-value agreement, mlp", control=c) for c in ("trained", "random twin")]
    last = max(values[0])
    parts.append(
        f"The closest MLP value vector of a class has a cosine of {two(values[0][0]['value'])} in block 0 and of "
        f"{two(values[0][last]['value'])} in block {last} ({two(values[1][last]['value'])} in the twin). "
    )
    return "".join(parts) + _kept(table)


def _rates(table: pa.Table) -> str:
    """How often the class is on top, and what the strongest memories are of, after the last block."""

    def end(curve: str) -> str:
        rows = by_layer(table, curve=curve, control="trained")
        return two(rows[max(rows)]["value"])

    keys = {name: (end(f"key-value agreement, {c}, patches"), end(f"key-value agreement by chance, {c}, patches"))
            for c, name in (("attn", "attention"), ("mlp", "the MLP"))}  # fmt: skip
    held = listed([f"for {own} in {name} (another class: {other})" for name, (own, other) in keys.items()])
    return (
        f"There the class is on top at {end('identifiability rate, patches')} of the patches, and at one of them at least in "
        f"{end('an identifiable patch')} of the images; a patch's five strongest memories hold one of its class's five {held}. "
    )


def _kept(table: pa.Table) -> str:
    """The area under accuracy by share of patches kept, most relevant first, against patches by chance."""
    kept = [row for row in table.to_pylist() if row["curve"] == "most relevant kept"]
    areas = {}
    for order in dict.fromkeys(row["order"] for row in kept):
        rows = [row for row in kept if row["order"] == order]
        areas[order] = area([row["share"] for row in rows], [row["value"] for row in rows])
    others = {order: ANOTHER.format(order) for order in areas if ANOTHER.format(order) in areas}
    chosen = [order for order in areas if order not in (*others.values(), "chance", ONE_PIECE)]
    text = ", ".join(f"{two(areas[order])} by {order}" for order in areas if order not in others.values())
    if all(areas[order] < areas["chance"] for order in chosen):
        verdict = "unlike in the paper, relevant patches keep less than patches by chance"
    elif all(areas[order] > areas["chance"] for order in chosen):
        verdict = "as in the paper, relevant patches keep more than patches by chance"
    else:
        verdict = "only some orders keep more than chance does"
    own = [f"{two(areas[other])} by {order}" for order, other in others.items()]
    better = [order for order, other in others.items() if areas[order] > areas[other]]
    said = "an image's own order says more than where patches lie" if len(better) == len(others) else (
        f"an image's own order says more than where patches lie for {listed(better)} only" if better else
        "an image's own order says no more than where patches lie")  # fmt: skip
    piece = "less" if areas[ONE_PIECE] < areas["chance"] else "no less"
    return (
        f"With some patches only, most relevant first, the area under accuracy is {text}: {verdict}. In the order of another "
        f"image it is {listed(own)}: {said}; patches by chance in one piece keep {piece} than scattered ones."
    )
