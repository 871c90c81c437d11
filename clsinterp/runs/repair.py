"""Whether a finished run still has what it wrote, and what is lost made again: tables from tables, or by computing anew."""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from clsinterp.errors import RequestError
from clsinterp.figures.facts import Facts
from clsinterp.figures.files import to_html
from clsinterp.figures.note import study_figures
from clsinterp.files import file_hash, reading, writing
from clsinterp.runs.belongings import BEGUN, REPORT, RUN_FILES
from clsinterp.runs.folder import RunFolder
from clsinterp.runs.results import curves_table, read_own, read_report

logger = logging.getLogger(__name__)
DRAWN = ("curves.parquet", "figure.html")  # from images.parquet alone


def draw(folder: RunFolder, facts: Facts, curves: pa.Table) -> None:
    """Write the tidy table and the figure."""
    folder.write_table(folder.path / "curves.parquet", curves)
    page = to_html(study_figures([(facts, curves)]))
    folder.write(folder.path / "figure.html", lambda p: p.write_text(page, encoding="utf-8"))


def hashes(path: Path) -> dict[str, str]:
    """A hash of every file of a run in `path`, but of its ``run.json``, which holds them."""
    return {name: file_hash(path / name) for name in RUN_FILES if (path / name).is_file()}


def lost(folder: RunFolder) -> list[str]:
    """Files of a finished run that are missing or not as it wrote them.

    Raises:
        RequestError: its ``run.json`` is damaged, or a file cannot be read.
    """
    report = read_report(folder.path)
    names = report.files or dict.fromkeys(RUN_FILES)
    return [name for name, wanted in names.items() if name in RUN_FILES and _is_lost(folder.path / name, wanted)]


def _is_lost(path: Path, wanted: str | None) -> bool:
    try:
        with reading(path, "Move it away."):
            return wanted not in (None, file_hash(path))
    except FileNotFoundError:
        return True


def redraw_lost(folder: RunFolder) -> None:
    """Make the tidy table and the figure of a finished run again if they are lost.

    Raises:
        RequestError: more than these is lost.
    """
    gone = lost(folder)
    if more := sorted(set(gone).difference(DRAWN)):
        raise RequestError(
            f"{' and '.join(more)} of {folder.path} {'is' if len(more) == 1 else 'are'} missing or changed; clsinterp run with "
            "the same arguments and --resume computes them again."
        )
    if not gone:
        return
    logger.warning("%s: %s missing or changed; drawn again.", folder.path, " and ".join(gone))
    report = read_report(folder.path)
    images = read_own(folder.path, report, "images.parquet")
    with writing(folder.work):
        folder.work.mkdir(exist_ok=True)
    draw(folder, report.facts, curves_table(images, report.facts))
    folder.write_json(folder.path / REPORT, replace(report, files=hashes(folder.path)).to_json())
    folder.finish()


def reopen(folder: RunFolder, job: dict[str, Any], gone: Collection[str]) -> None:
    """Make the finished run in `folder` an unfinished one that lacks the files `gone`: what is there stays.

    Args:
        folder: of a run that was asked what `job` was.
        job: as it is begun with.
        gone: as `lost` gives.
    """
    logger.warning("%s: %s missing or changed; computed again.", folder.path, " and ".join(gone))
    with writing(folder.path):
        folder.work.mkdir(exist_ok=True)
        folder.write_once(BEGUN, job)
        for name in (REPORT, *gone):
            (folder.path / name).unlink(missing_ok=True)
