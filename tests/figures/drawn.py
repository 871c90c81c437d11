"""Every figure of a study and of a run, drawn from the tables of the gallery: nothing is measured."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from clsinterp.figures import headline, knock, note
from clsinterp.figures.facts import Facts
from clsinterp.studies.ablations.figure import ablations_figure
from clsinterp.studies.causality.figure import context_figure, counting_figure
from clsinterp.studies.class_space.figure import class_space_figure
from clsinterp.studies.donors.bootstrap import Interval
from clsinterp.studies.donors.figure import confusability_figure, gap_figure
from clsinterp.studies.erasure.figure import erasure_figure
from clsinterp.studies.frequency.figure import frequency_figure
from clsinterp.studies.head_patching.figure import heads_figure
from clsinterp.studies.readouts.figure import calibration_figure, readouts_figure
from clsinterp.studies.restoration.figure import restoration_figure
from clsinterp.studies.subspace.figure import subspace_figure
from clsinterp.studies.tidy import one, pick

TABLES = Path(__file__).parents[2] / "experiments" / "tables"
FACTS = Facts(
    model="zoo/vit", family="vit", seed=0, mode="permute", n_classes=10, n_labels=10, n_layers=12, final_norm=True, data="zoo",
    head="name", floors={"use": 0.1, "availability": 0.1},
)  # fmt: skip
SETS = ("at l alone", "at the 3 layers up to l", "at every layer up to l")
KINDS = ("intact", "constant", "learned constant", "gaussian", "generator", "augment")


@cache
def table(name: str) -> pa.Table:
    return pq.read_table(TABLES / f"{name}.parquet")


def setup(name: str, n_classes: int = 10) -> SimpleNamespace:
    layers = {layer for layer in table(name)["layer"].to_pylist() if layer is not None}
    head = SimpleNamespace(n_classes=n_classes)
    return SimpleNamespace(
        name=table(name)["model"][0].as_py(), layers=range(max(layers) + 1), n_classes=n_classes, head=head
    )


def models() -> list[dict]:
    """What the donors study knows of each model beside its table's curves."""
    rows = table("donors")

    def interval(model: str, curve: str) -> Interval:
        found = pick(rows, model=model, curve=curve)
        missing = Interval(*[float("nan")] * 3, 0.0)
        return Interval(*(found[0][key] for key in ("value", "ci_low", "ci_high"))) if found else missing

    return [
        {"model": m, "n_layers": 12, "n": 1000, "chance": 0.1, "intact": one(rows, model=m, curve="intact")["value"],
         "gap": interval(m, "gap"), "crossing": interval(m, "crossing")}
        for m in dict.fromkeys(rows["model"].to_pylist())
    ]  # fmt: skip


def heads() -> go.Figure:
    rows = table("head_patching").to_pylist()
    parts = [
        pa.Table.from_pylist([r for r in rows if r["curve"] == c]) for c in ("tokens", "heads", "heads, first-order")
    ]
    names = {r["token"]: r["place"] for r in parts[0].to_pylist()}
    named = [names.get(i, str(i)) for i in range(max(names) + 1)]
    return heads_figure(*parts, named, lambda r: f"L{r['layer']}H{r['head']}", "zoo/vit, ankle boot into sandal")


@cache
def figures() -> dict[str, go.Figure]:
    """Name -> figure."""
    alike = torch.linspace(0, 1, 144).view(12, 12)
    found = {
        "ablations": ablations_figure(table("ablations"), setup("ablations")),
        "counting": counting_figure(table("causality"), setup("causality", 5), 0.2),
        "context": context_figure(table("causality"), setup("causality", 5)),
        "class_space": class_space_figure(table("class_space"), setup("class_space")),
        "gaps": gap_figure(table("donors"), models()),
        "gap": gap_figure(table("donors"), models()[:1]),
        "confusability": confusability_figure(table("donors"), models(), ("distinct", "middling", "confusable")),
        "erasure": erasure_figure(table("erasure"), setup("erasure")),
        "frequency": frequency_figure(table("frequency"), setup("frequency"), (0.125, 0.25, 0.5, 0.75)),
        "heads": heads(),
        "readouts": readouts_figure(
            table("readouts"), {"same answer": alike, "phi": 1 - 2 * alike}, setup("readouts"), KINDS
        ),
        "calibration": calibration_figure(table("readouts"), setup("readouts"), 50),
        "restoration": restoration_figure(table("restoration"), setup("restoration"), SETS),
        "rereading": knock.knock_figure(table("rereading"), "zoo/vit", 12, 3),
        "subspace": subspace_figure(table("subspace"), setup("subspace")),
        "headline": headline.headline_figure(FACTS, table("note"), {"decodable_from": 0, "used_from": 4}),
    }
    long = replace(FACTS, model="somebody/vit-large-patch16-with-a-very-long-name-that-goes-on-384-in21k-ft-in1k")
    for name, runs in {"run": [FACTS], "five runs": [long] + [FACTS] * 4}.items():
        found |= {f"{name} {i}": f for i, f in enumerate(note.study_figures([(f, table("note")) for f in runs])[:5])}
    return found
