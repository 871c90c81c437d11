"""A finished run as a table on the terminal."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsinterp.runs.report import Report

# (curve, metric) -> its column in the table of a run.
COLUMNS = {
    ("probe", "accuracy"): "probe",
    ("shuffle", "accuracy"): "output",
    ("cost", "accuracy"): "cost",
    ("agreement", "share"): "same",
    ("shuffle_cls_only", "accuracy"): "cls-only",
    ("donor", "accuracy"): "donor",
    ("lens", "accuracy"): "lens",
    ("lens", "identifiability"): "ident.",
}

# How labels became classes of the classifier, in words.
HEADS = {
    "name": "the model's own, classes matched by name",
    "count": "the model's own, classes matched by order",
    "map": "the model's own, classes matched by the label map",
    "fit": "fitted here",
}


def run_table(report: "Report", curves: Any) -> Any:
    """The table of a run: one row per layer, one column per curve."""
    from rich.table import Table

    facts, rows = report.facts, curves.to_pylist()
    points = {(r["curve"], r["layer"], r["metric"]): r for r in rows if r["probed_layer"] is None}
    shown = [key for key in COLUMNS if any((curve, metric) == key for curve, _, metric in points)]
    n = points["intact", None, "accuracy"]["n"]
    flat = [(c, points.get((c, None, "accuracy"))) for c in ("intact", "intact_cls_only")]
    said = [f"{c.replace('_', ' ')} {row['value']:.3f}" for c, row in flat if row]
    said += [f"floor of {what} {value:.3f}" for what, value in (facts.floors or {}).items()]
    if any(curve == "probe" and layer == -1 for curve, layer, _ in points):
        said.append(f"probe before block 0 {points['probe', -1, 'accuracy']['value']:.3f}")
    said += [f"head: {HEADS[facts.head]}", f"mode: {facts.mode}", f"tokens: {facts.group}"]
    if facts.cls_only:
        said.append(f"cls-only: {facts.cls_only}")
    if report.collision_rate is not None:
        said.append(f"donor of the same label: {report.collision_rate:.3f}")
    if report.alpha_at_edge:
        said.append("* penalty at an end of the grid")
    table = Table(
        title=f"{facts.model} ({facts.family}) on {facts.data}: accuracy on {n} test images",
        caption="; ".join(said),
        min_width=60,
        box=None,
        padding=(0, 0, 0, 2),  # nine columns have to fit into 80 characters
    )
    table.add_column("layer", justify="right", no_wrap=True)
    for key in shown:
        table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for layer in report.manifest.layers:
        cells = []
        for curve, metric in shown:
            row = points.get((curve, layer, metric))
            cell = f"{row['value']:.3f}" if row else ""
            if row and curve.startswith("cost"):
                cell += f"±{(row['ci_high'] - row['ci_low']) / 2:.3f}"
            if row and curve == "probe" and layer in report.alpha_at_edge:
                cell += "*"
            cells.append(cell)
        table.add_row(str(layer), *cells)
    return table
