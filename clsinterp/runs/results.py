"""The tidy table made from the per-image ranks, and reading a finished run."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from clsinterp import files
from clsinterp.errors import RequestError
from clsinterp.figures.facts import Facts
from clsinterp.probing.metrics import identifiability, mean_interval, wilson
from clsinterp.runs.by_image import ByImage
from clsinterp.runs.report import Report
from clsinterp.sweeps.columns import BESIDE, column, parse

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
COST = {"shuffle": "cost", "shuffle_cls_only": "cost_cls_only"}
AGREEMENT = {"shuffle": "agreement", "shuffle_cls_only": "agreement_cls_only"}
REPLACED = ("shuffle", "shuffle_cls_only", "donor", "restoration")
METRICS = {"lens": ("accuracy", "top5", "identifiability"), "restoration": ("accuracy",), "donor": ("accuracy",),
           "intact_probe_after_erasure": ("accuracy",)}  # fmt: skip


def curves_table(images: pa.Table, facts: Facts) -> pa.Table:
    """One row per point of every curve, from the columns of ``images.parquet``.

    Args:
        images: the per-image table.
        facts: whose they are.

    Returns:
        Columns as in `CURVES`. Intervals are 95% over images: Wilson for proportions, normal for means (identifiability, costs,
        and everything of which an image has several swaps, averaged within the image first). ``cost`` is intact minus swapped
        accuracy on the same images, ``agreement`` the share of images whose answer is the intact one; of curves measured beside
        the note (`BESIDE`) both are metrics of the curve itself. ``layer`` is null for
        the intact curves; ``probed_layer`` is set for restoration and ``intact_probe_after_erasure`` only; ``mode`` is null where
        nothing was replaced.
    """
    table = ByImage(images)
    rows: list[tuple[str, tuple[int | None, ...], str, float, float, float, bool]] = []
    for name in images.column_names:
        found = parse(name)
        if found is None:
            continue
        curve, at = found.curve, (*found.layers, None, None)[:2]
        swapped = curve in REPLACED
        if found.kind == "answer":
            if swapped or curve in BESIDE:
                same = table.column(name) == table.column(_intact(curve, "answer"))
                named = (AGREEMENT[curve], at, "share") if swapped else (curve, at, "agreement")
                rows.append((*named, *_share(same if swapped else same[:, :1]), swapped))
            continue
        rank = table.column(name) if swapped else table.column(name)[:, :1]
        n_classes = facts.n_labels if curve in ("probe", "restoration") else facts.n_classes
        metrics = METRICS.get(curve.removesuffix("_distill"), ("accuracy", "top5"))
        rows += [(curve, at, metric, *_point(metric, rank, n_classes), swapped) for metric in metrics]
        if curve in COST or curve in BESIDE:
            difference = torch.from_numpy(table.right(_intact(curve, "rank")) - table.right(name))
            interval = mean_interval(difference, -1.0, 1.0)
            named = (COST[curve], at, "accuracy") if curve in COST else (curve, at, "cost")
            rows.append((*named, float(difference.mean()), *interval, swapped))
    return pa.Table.from_pylist(
        [
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
                "n": table.n,
                "seed": facts.seed,
                "mode": facts.mode if swapped else None,
            }
            for curve, (layer, probed), metric, value, low, high, swapped in rows
        ],
        schema=CURVES,
    )


def _intact(curve: str, kind: str) -> str:
    return column("intact_cls_only" if curve.endswith("_cls_only") else "intact", kind=kind)


def _share(right: np.ndarray) -> tuple[float, float, float]:
    """The share of an (image, swap) table of hits and its interval over images."""
    n, swaps = right.shape
    if swaps == 1:
        hits = int(right.sum())
        return hits / n, *wilson(hits, n)
    by_image = torch.from_numpy(right.mean(1))
    return float(by_image.mean()), *mean_interval(by_image, 0.0, 1.0)


def _point(metric: str, rank: np.ndarray, n_classes: int) -> tuple[float, float, float]:
    if metric == "identifiability":
        values = identifiability(torch.from_numpy(rank).long(), n_classes).mean(1)
        return float(values.mean()), *mean_interval(values, 0.0, 1.0)
    return _share(rank < {"accuracy": 1, "top5": 5}[metric])


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
        RequestError: not a finished run folder, or a file of it is damaged or not the one the run wrote.
    """
    folder = Path(path)
    report, curves = folder / "run.json", folder / "curves.parquet"
    try:
        found = read_report(folder)
        return Run(found, read_own(folder, found, curves.name, CURVES))
    except (FileNotFoundError, NotADirectoryError) as error:
        gone = "" if not report.is_file() else f" {curves.name} is missing; clsinterp merge {folder} makes it again."
        raise RequestError(
            f"{folder} is not a finished run folder (run.json and curves.parquet are expected).{gone}"
        ) from error


def read_report(folder: Path) -> Report:
    """What the finished run in `folder` says of itself.

    Raises:
        RequestError: damaged, or not a run's.
        FileNotFoundError: it is not there.
    """
    path = folder / "run.json"
    remedy = f"So {folder} is not a finished run folder; remove it and run again, or give another."
    with files.reading(path, remedy):
        return Report.of_json(files.read_json(path))


def read_own(folder: Path, report: Report, name: str, schema: pa.Schema | None = None) -> pa.Table:
    """The table `name` of a finished run, as the run wrote it.

    Raises:
        RequestError: damaged or changed since; the message says what makes it again.
        FileNotFoundError: it is not there.
    """
    path = folder / name
    again = "clsinterp merge RUN" if name != "images.parquet" else "clsinterp run with the same arguments and --resume"
    with files.reading(path, f"{again.replace('RUN', str(folder))} makes it again."):
        if report.files.get(name) not in (None, files.file_hash(path)):
            raise ValueError("it is not the file that the run wrote")
        table = files.read_table(path)
        if schema is not None and not table.schema.equals(schema):
            raise ValueError("its columns are others")
        return table
