"""What the study of causality and decodability found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import Row, by_layer, first, listed, name_of, runs, span, two
from clsinterp.studies.tidy import pick

CHANCE = 0.2  # of five counts
HALF = 0.5  # of outputs turn: the group acts
ALPHA = 0.025  # on either side of the permutation test
READABLE = (1 + CHANCE) / 2  # half way from chance to all: the group tells the count


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table."""
    groups = {
        group: (
            by_layer(table, curve="turns to the donor's count", group=group, direction="both"),
            by_layer(table, curve="probe reads the count", group=group),
        )
        for group in ("removed object", "CLS")
    }
    turns, reads = groups["removed object"]
    acts = [i for i in turns if turns[i]["value"] >= HALF]
    last = max(turns)
    pairs, all_pairs = turns[last]["n"], reads[last]["n"]
    parts = [f"On {name_of(table)} ({pairs} of {all_pairs} pairs) swapping the removed object's tokens turns at least half of "
             f"the outputs at {runs(acts, 'block')}"]  # fmt: skip
    if acts:
        parts.append(f" ({span(turns[i] for i in acts)}), where a probe reads the count from them at "
                     f"{span(reads[i] for i in acts)}")  # fmt: skip
    parts.append(f"; after the last block the probe gets {two(reads[last]['value'])} and a swap turns "
                 f"{two(turns[last]['value'])}. ")  # fmt: skip
    if groups["CLS"][0]:
        parts.append(_cls(*groups["CLS"]) + " ")
    return "".join([*parts, _context(table)])


def _context(table: pa.Table) -> str:
    """Class and context tokens."""
    apart = by_layer(table, curve="objects above background")
    last = max(apart)
    rate = [by_layer(table, curve="identifiability rate", group=group)[last] for group in ("objects", "background")]
    alone = {row["group"]: row["value"] for row in pick(table, curve="output, patches alone")}
    more, less = (
        [i for i, row in apart.items() if low < row["p"] < high] for low, high in ((-1, ALPHA), (1 - ALPHA, 2))
    )
    found = [f"{word} at {runs(layers, 'block')}" for word, layers in (("more", more), ("less", less)) if layers]
    said = listed(found) if found else "neither more nor less"
    return (
        f"Read by itself, a patch with objects tells the count {said} than one of the background, beyond what a permutation "
        f"test leaves to where they stand{_beyond(table)}; after the last block the count is on top at {two(rate[0]['value'])} "
        f"of the one and {two(rate[1]['value'])} of the other. With the patches with objects alone the output is right for "
        f"{two(alone['objects'])} of the images, with the background alone for {two(alone['background'])}, with all for "
        f"{two(alone['all patches'])}."
    )


def _beyond(table: pa.Table) -> str:
    """The same against the count of another image: what patches say whatever is there."""
    layers = by_layer(table, curve="objects above background, another count")
    beyond = by_layer(table, curve="objects above background, beyond another count")
    alike = [i for i, row in layers.items() if row["ci_high"] < 0]
    more = [i for i, row in beyond.items() if row["ci_low"] > 0]
    less = [i for i, row in beyond.items() if row["ci_high"] < 0]
    found = [f"{word} at {runs(at, 'block')}" for word, at in (("more", more), ("less", less)) if at]
    return (
        f" (the count of another image stands lower at patches with objects, too, at {runs(alike, 'block')}; beyond that they "
        f"tell the image's own {listed(found) if found else 'neither more nor less'})"
    )


def _cls(turns: dict[int, Row], reads: dict[int, Row]) -> str:
    """The order of acting and telling for the CLS token, against the paper's."""
    acts = first(turns, lambda i: turns[i]["value"] >= HALF)
    tells = first(reads, lambda i: reads[i]["value"] >= READABLE)
    if acts is None or tells is None:
        missing = [
            word for word, at in (("acts on half of the outputs", acts), ("tells the count", tells)) if at is None
        ]
        return f"The CLS token {' and '.join(missing)} at no block."
    at = {i: f"block {i} ({two(turns[i]['value'])} of outputs turn, the probe gets {two(reads[i]['value'])})"
          for i in (acts, tells)}  # fmt: skip
    if acts == tells:
        order = "both in the same block"
    elif acts < tells:
        order = "the reverse of the paper's order"
    else:
        order = "the paper's order"
    return (
        f"The CLS token acts on half of the outputs from {at[acts]} and can be read half way from chance to all from "
        f"{at[tells]}: {order}, in which it can be read in middle layers and acts in the last ones only."
    )
