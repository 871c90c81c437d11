"""Every figure of a study and of a run, drawn from the tables of the gallery: nothing is measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq

from clsinterp.figures import headline, knock, note
from clsinterp.figures.facts import Facts
from clsinterp.figures.layout import in_column
from clsinterp.studies.causality.figure import context_figure
from clsinterp.studies.donors.figure import confusability_figure, gap_figure, sums
from clsinterp.studies.drawn import DRAWN
from clsinterp.studies.readouts.figure import calibration_figure
from clsinterp.studies.shown import Recorded

TABLES = Path(__file__).parents[2] / "experiments" / "tables"
FACTS = Facts(
    model="zoo/vit", family="vit", seed=0, mode="permute", n_classes=10, n_labels=10, n_layers=12, final_norm=True, data="zoo",
    head="name", floors={"use": 0.1, "availability": 0.1},
)  # fmt: skip

AGREEMENT = pa.Table.from_pylist(
    [
        {"kind": "generator", "layer": i, "other": j, "same answer": (i + j) / 22, "phi": 1 - (i + j) / 11}
        for i in range(12) for j in range(i + 1, 12)
    ]
)  # fmt: skip


@cache
def table(name: str) -> pa.Table:
    return pq.read_table(TABLES / f"{name}.parquet")


def shown(name: str) -> list[Recorded]:
    """The models that a table is about."""
    return [Recorded.read(facts) for facts in json.loads((TABLES / f"{name}.json").read_text())]


def drawn(name: str) -> go.Figure:
    """As the gallery draws it."""
    found = {name: table(name), "agreement": AGREEMENT}
    return DRAWN[name](found, shown(name))


LONG = replace(FACTS, model="somebody/vit-large-patch16-with-a-very-long-name-that-goes-on-384-in21k-ft-in1k")
STUDIED = {"run": [FACTS], "five runs": [LONG] + [FACTS] * 4}


def donors() -> list:
    return [sums(table("donors"), model) for model in shown("donors")]


OTHERS: dict[str, Callable[[], go.Figure]] = {
    "context": lambda: context_figure(table("causality"), *shown("causality")),
    "gap": lambda: gap_figure(table("donors"), donors()[:1]),
    "confusability": lambda: confusability_figure(table("donors"), donors(), ("distinct", "middling", "confusable")),
    "calibration": lambda: calibration_figure(table("readouts"), *shown("readouts"), 50),
    "rereading": lambda: knock.knock_figure(table("rereading"), "zoo/vit", 12, 3),
    "headline": lambda: headline.headline_figure(FACTS, table("note"), {"decodable_from": 0, "used_from": 4}),
}


@cache
def of_runs(which: str) -> list[go.Figure]:
    return note.study_figures([(facts, table("note")) for facts in STUDIED[which]])


@cache
def figure(name: str) -> go.Figure:
    """A figure by the name of its study, or as ``run 0``, ``five runs 3``: the figures of that many runs."""
    if name in DRAWN:
        return drawn(name)
    runs, _, i = name.rpartition(" ")
    return of_runs(runs)[int(i)] if runs in STUDIED else OTHERS[name]()


@cache
def on_paper(name: str) -> tuple[go.Figure, str]:
    """The same as wide as a column, and its caption."""
    return in_column(figure(name))
