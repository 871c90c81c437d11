"""The tidy table made from the per-image ranks, and reading a finished run."""

import json
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clsinterp.errors import RequestError
from clsinterp.figures.facts import Facts
from clsinterp.probing.metrics import identifiability, mean_interval, wilson
from clsinterp.runs.job import NOT_ITS_JSON
from clsinterp.runs.report import Report
from clsinterp.sweeps.columns import parse

CURVES = pa.schema(
    [
        ("model", pa.string()),
        ("family", pa.string()),
        ("curve", pa.string()),
        ("layer", pa.int16()),
        ("probed_layer", pa.int16()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
        ("seed", pa.int64()),
        ("mode", pa.string()),
    ]
)
METRICS = {"lens": ("accuracy", "top5", "identifiability"), "restoration": ("accuracy",), "donor": ("accuracy",)}


def curves_table(images: pa.Table, facts: Facts) -> pa.Table:
    """One row per point of every curve, from the rank columns of ``images.parquet``.

    Args:
        images: the per-image table.
        facts: whose they are.

    Returns:
        Columns as in `CURVES`. Intervals are 95%: Wilson for proportions, normal for the mean identifiability. ``layer``
        is null for the intact curves; ``probed_layer`` is set for restoration only; ``mode`` is null where nothing was
        swapped.
    """
    rows = []
    for name in images.column_names:
        found = parse(name)
        if found is None or found.kind != "rank":
            continue
        curve, (layer, probed) = found.curve, (*found.layers, None, None)[:2]
        rank = torch.from_numpy(images[name].to_numpy().copy()).long()
        of_labels = curve in ("probe", "restoration")
        n_classes = facts.n_labels if of_labels else facts.n_classes
        swapped = curve in ("donor", "restoration") or curve.startswith("shuffle")
        for metric in METRICS.get(curve.removesuffix("_distill"), ("accuracy", "top5")):
            value, low, high = _point(metric, rank, n_classes)
            rows.append(
                {
                    "model": facts.model,
                    "family": facts.family,
                    "curve": curve,
                    "layer": layer,
                    "probed_layer": probed,
                    "metric": metric,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(rank),
                    "seed": facts.seed,
                    "mode": facts.mode if swapped else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=CURVES)


def _point(metric: str, rank: torch.Tensor, n_classes: int) -> tuple[float, float, float]:
    if metric == "identifiability":
        values = identifiability(rank, n_classes)
        return float(values.mean()), *mean_interval(values, 0.0, 1.0)
    hits = int((rank < {"accuracy": 1, "top5": 5}[metric]).sum())
    return hits / len(rank), *wilson(hits, len(rank))


class Run(NamedTuple):
    """A finished run.

    Attributes:
        report: its ``run.json``.
        curves: a row per point, as `curves_table` gives them.
    """

    report: Report
    curves: pa.Table


def read_run(path: str | Path) -> Run:
    """The report and the curves of a finished run.

    Raises:
        RequestError: not a finished run folder.
    """
    folder = Path(path)
    try:
        report = Report.of_json(json.loads((folder / "run.json").read_text()))
        return Run(report, pq.read_table(folder / "curves.parquet"))
    except (OSError, *NOT_ITS_JSON) as error:
        raise RequestError(
            f"{folder} is not a finished run folder (run.json and curves.parquet are expected)."
        ) from error
