"""What the study of frequency found."""

from collections.abc import Sequence

import pyarrow as pa

from clsinterp.studies.findings.words import above, listed, name_of, two
from clsinterp.studies.tidy import one, pick

CUT = 0.5  # of Nyquist


def sentence(table: pa.Table, notes: Sequence[str]) -> str:
    """Of the study's tidy table."""
    last = max(row["layer"] for row in table.to_pylist() if row["layer"] is not None)

    def at_end(measure: str, kind: str, cutoff: float | None, group: str) -> float:
        where = {"measure": measure, "kind": kind, "cutoff": cutoff, "group": group, "layer": last}
        return float(one(table, **where)["value"])

    low = [at_end("similarity", "low-pass", CUT, group) for group in ("cls", "patches")]
    cuts = sorted({row["cutoff"] for row in pick(table, kind="high-pass")})
    high = max(at_end("similarity", "high-pass", cut, group) for cut in cuts for group in ("cls", "patches"))
    intact = at_end("probe", "intact", None, "cls")
    blurred = at_end("probe", "low-pass", CUT, "cls")
    edges = max(at_end("probe", "high-pass", cut, "cls") for cut in cuts)
    heads = {(row["kind"], row["embedding"]): row for row in pick(table, measure="refitted head")}
    shifted = [kind for kind, embedding in heads if embedding == "random" and kind != "as it is"]
    better = [kind for kind in shifted if above(heads[kind, "random"], heads[kind, "learned"])]

    def change(kind: str) -> str:
        return " to ".join(f"{heads[kind, embedding]['value']:.3f}" for embedding in ("learned", "random"))

    parts = [
        f"On {name_of(table)}, after the last block, the CLS token keeps a cosine of {two(low[0])} and the mean patch one of "
        f"{two(low[1])} with the image below {CUT:g} of Nyquist, and {two(high)} at most with what lies above any cut-off; the "
        f"CLS token's probe gets {two(intact)} on intact images, {two(blurred)} below {CUT:g} and {two(edges)} at most above a "
        f"cut-off. With a random CLS embedding and a refitted head accuracy goes from {change('as it is')} on test images as "
        f"they are, {listed([f'from {change(kind)} on {kind} ones' for kind in shifted])}: ",
        f"the random one serves {listed(better)} images better."
        if better
        else "it does not serve shifted images better here.",
    ]
    return "".join(parts)
