"""The tidy table made from the per-image ranks, and reading a finished run."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clsinterp.errors import RequestError
from clsinterp.probing.metrics import identifiability, mean_interval, wilson

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
RANK_COLUMN = re.compile(r"rank_(?P<curve>[a-z_]+?)(?:_(?P<layer>-?\d+))?(?:_(?P<probed>-?\d+))?")


def curves_table(images: pa.Table, facts: dict[str, Any]) -> pa.Table:
    """One row per point of every curve, from the rank columns of ``images.parquet``.

    Args:
        images: the per-image table.
        facts: ``model``, ``family``, ``seed``, ``mode``, ``n_classes`` (of the classifier) and ``n_labels`` (of the data).

    Returns:
        Columns as in `CURVES`. Intervals are 95%: Wilson for proportions, normal for the mean identifiability. ``layer``
        is null for the intact curves; ``probed_layer`` is set for restoration only; ``mode`` is null where nothing was
        swapped.
    """
    rows = []
    for name in images.column_names:
        if not (found := RANK_COLUMN.fullmatch(name)):
            continue
        curve = found["curve"]
        layer = None if found["layer"] is None else int(found["layer"])
        probed = None if found["probed"] is None else int(found["probed"])
        rank = torch.from_numpy(images[name].to_numpy().copy()).long()
        of_labels = curve in ("probe", "restoration")
        n_classes = facts["n_labels"] if of_labels else facts["n_classes"]
        swapped = curve in ("donor", "restoration") or curve.startswith("shuffle")
        for metric in METRICS.get(curve.removesuffix("_distill"), ("accuracy", "top5")):
            value, low, high = _point(metric, rank, n_classes)
            rows.append(
                {
                    "model": facts["model"],
                    "family": facts["family"],
                    "curve": curve,
                    "layer": layer,
                    "probed_layer": probed,
                    "metric": metric,
                    "value": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": len(rank),
                    "seed": facts["seed"],
                    "mode": facts["mode"] if swapped else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=CURVES)


def _point(metric: str, rank: torch.Tensor, n_classes: int) -> tuple[float, float, float]:
    if metric == "identifiability":
        values = identifiability(rank, n_classes)
        return float(values.mean()), *mean_interval(values, 0.0, 1.0)
    hits = int((rank < {"accuracy": 1, "top5": 5}[metric]).sum())
    return hits / len(rank), *wilson(hits, len(rank))


def read_run(path: str | Path) -> tuple[dict[str, Any], pa.Table]:
    """The manifest and the curves of a finished run.

    Raises:
        RequestError: not a finished run folder.
    """
    folder = Path(path)
    try:
        return json.loads((folder / "run.json").read_text()), pq.read_table(folder / "curves.parquet")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{folder} is not a finished run folder (run.json and curves.parquet are expected)."
        ) from error
