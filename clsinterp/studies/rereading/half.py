"""Between which layers the CLS token reads what the output uses: where knock-outs cost half of never reading."""

import pyarrow as pa

from clsinterp.studies.tidy import pick


def half_read(table: pa.Table, which: str = "") -> tuple[int, int] | None:
    """The first layer whose ``knock_until`` costs half of never reading, and the last whose ``knock_from`` does.

    None where never reading costs nothing beyond its interval.

    Args:
        table: rows of the study.
        which: empty for the output, ``_cls_only``, or ``_registers``.
    """
    until, since = (
        sorted(pick(table, curve=f"knock_{name}{which}", metric="cost"), key=lambda row: row["layer"])
        for name in ("until", "from")
    )
    if not until or until[-1]["ci_low"] <= 0:
        return None
    half = until[-1]["value"] / 2
    first = next(row["layer"] for row in until if row["value"] >= half)
    return first, max(row["layer"] for row in since if row["value"] >= half)


def halves(table: pa.Table) -> str:
    """`half_read` of the output in words."""
    found = half_read(table)
    if found is None:
        return "never reading costs nothing, so there is no layer by which half was read"
    return (
        f"half of what never reading costs is lost without blocks 0 to {found[0]}, and without those from {found[1]} on"
    )
