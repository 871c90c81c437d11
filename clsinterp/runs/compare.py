"""Finished runs side by side: one row per run, sorted by the gap between availability and use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clsinterp.errors import RequestError
from clsinterp.runs.gap import gap
from clsinterp.runs.results import Run, read_run

TABLE = pa.schema(
    [
        ("run", pa.string()),
        ("model", pa.string()),
        ("family", pa.string()),
        ("note", pa.string()),
        ("data", pa.string()),
        ("same_data", pa.bool_()),
        ("n", pa.int64()),
        ("classes", pa.int64()),
        ("image_size", pa.int64()),
        ("head", pa.string()),
        ("mode", pa.string()),
        ("group", pa.string()),
        ("layers", pa.int64()),
        ("intact", pa.float64()),
        ("intact_low", pa.float64()),
        ("intact_high", pa.float64()),
        ("floor_use", pa.float64()),
        ("floor_availability", pa.float64()),
        ("best_probe", pa.float64()),
        ("best_probe_low", pa.float64()),
        ("best_probe_high", pa.float64()),
        ("best_probe_layer", pa.int64()),
        ("cost_first", pa.float64()),
        ("cost_first_low", pa.float64()),
        ("cost_first_high", pa.float64()),
        ("cost_last", pa.float64()),
        ("cost_last_low", pa.float64()),
        ("cost_last_high", pa.float64()),
        ("decodable_from", pa.string()),
        ("used_from", pa.string()),
        ("gap", pa.float64()),
        ("gap_low", pa.float64()),
        ("gap_high", pa.float64()),
        ("reason", pa.string()),
    ]
)
SHOWN = {  # column -> its head in the table for people
    "model": "model",
    "data": "data",
    "n": "n",
    "head": "head",
    "intact": "intact",
    "floor_use": "floor",
    "best_probe": "best probe",
    "cost_first": "cost, first",
    "cost_last": "cost, last",
    "decodable_from": "decodable from",
    "used_from": "used from",
    "gap": "gap",
}


def compare(folders: Sequence[Path], force: bool = False) -> pa.Table:
    """One row per run, widest gap first; runs without one come last.

    Args:
        folders: finished run folders.
        force: also compare runs on different test images, and say so: ``same_data`` is false where a run's test images are not
            those of the first.

    Returns:
        Columns as in `TABLE`: accuracies with 95% intervals (costs are paired, intact minus swapped on the same images, at the
        first and the last layer that was swapped), onsets as text, and the gap of `clsinterp.runs.gap`, or the reason why there
        is none.

    Raises:
        RequestError: fewer than two runs, one that is not finished, the same run twice, or runs on different data.
    """
    if len(folders) < 2:
        raise RequestError(f"{len(folders)} run was given; at least two are needed to compare.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RequestError(f"a run was given twice: {', '.join(map(str, folders))}.")
    runs = [read_run(folder) for folder in folders]
    tested = [_tested(run) for run in runs]
    if not force and (other := [str(f) for f, data in zip(folders, tested, strict=True) if data != tested[0]]):
        raise RequestError(
            f"other test images than those of {folders[0]} were measured in {', '.join(other)}, so their accuracies are not "
            "comparable; run them on the same data and seed, or give force=True to compare all the same."
        )
    rows = [_row(folder, run, data == tested[0]) for folder, run, data in zip(folders, runs, tested, strict=True)]
    rows.sort(key=lambda row: (row["gap"] is None, -(row["gap"] or 0)))
    return pa.Table.from_pylist(rows, schema=TABLE)


def _tested(run: Run) -> tuple[str, str]:
    """What two runs must share to be compared: the test images and their labels' names."""
    return run.report.identity.fingerprint["test"], "\n".join(run.report.manifest.class_names)


def _row(folder: Path, run: Run, same_data: bool) -> dict[str, Any]:
    report, facts = run.report, run.report.facts
    points = {(r["curve"], r["layer"]): r for r in run.curves.to_pylist() if r["metric"] == "accuracy"}
    layers = sorted(layer for curve, layer in points if curve == "cost" and layer >= 0)
    probes = [points["probe", layer] for layer in layers]
    best = max(probes, key=lambda r: r["value"]) if probes else None
    floors = facts.floors or {}
    try:
        found = gap(pq.read_table(folder / "images.parquet"), report.manifest.labels.classes, facts.seed)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RequestError(f"{folder} has no readable images.parquet, from which the gap is computed.") from error

    def three(name: str, point: dict[str, Any] | None) -> dict[str, float | None]:
        given = point or {"value": None, "ci_low": None, "ci_high": None}
        return {name: given["value"], f"{name}_low": given["ci_low"], f"{name}_high": given["ci_high"]}

    return {
        "run": folder.name,
        "model": facts.model,
        "family": facts.family,
        "note": facts.note,
        "data": facts.data,
        "same_data": same_data,
        "n": report.manifest.counts.test,
        "classes": facts.n_labels,
        "image_size": report.identity.request.image_size,
        "head": facts.head,
        "mode": facts.mode,
        "group": facts.group,
        "layers": facts.n_layers,
        **three("intact", points["intact", None]),
        "floor_use": floors.get("use"),
        "floor_availability": floors.get("availability"),
        **three("best_probe", best),
        "best_probe_layer": best and best["layer"],
        **three("cost_first", points["cost", layers[0]] if layers else None),
        **three("cost_last", points["cost", layers[-1]] if layers else None),
        **{name: str(report.onsets[name]) for name in ("decodable_from", "used_from")},
        "gap": found.value,
        "gap_low": found.ci[0],
        "gap_high": found.ci[1],
        "reason": found.reason,
    }


def cells(table: pa.Table) -> list[list[str]]:
    """The table for people: the columns of `SHOWN`, numbers with their intervals, other data than the first run's marked."""
    return [[_cell(row, name) for name in SHOWN] for row in table.to_pylist()]


def markdown(table: pa.Table) -> str:
    """`cells` as a Markdown table, with what its marks mean under it."""
    lines = [list(SHOWN.values()), ["---"] * len(SHOWN), *cells(table)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = [f"{row['run']}: no gap, since {row['reason']}." for row in table.to_pylist() if row["reason"]]
    if not all(table["same_data"].to_pylist()):
        notes.insert(0, "(!) measured on other test images than the first run that was named: not comparable.")
    return text + "".join(f"\n{note}\n" for note in notes)


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if name == "data":
        short = Path(value).name if "/" in value else value
        size = f", {row['image_size']} px" if row["image_size"] else ""
        mode = "" if row["mode"] == "permute" else f", {row['mode']}"  # else two rows of one model look alike
        return f"{short}{size}{mode}{'' if row['same_data'] else ' (!)'}"
    if not isinstance(value, float):
        return "none" if value is None else str(value)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
