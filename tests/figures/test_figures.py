import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import clsinterp
from clsinterp.errors import RequestError
from clsinterp.figures import note as figures
from clsinterp.figures import style
from clsinterp.figures.facts import Facts
from clsinterp.figures.files import save_figure
from clsinterp.runs.results import CURVES, curves_table

COMMANDS = Path(clsinterp.__file__).parents[1] / "docs" / "commands.md"
FACTS = Facts(
    model="google/vit-base-patch16-224", family="vit", seed=0, mode="permute", n_classes=10, n_labels=10, n_layers=3,
    final_norm=True, data="imagenet-1k", head="name",
    floors={"use": 0.15, "availability": 0.1},
)  # fmt: skip


@pytest.fixture
def curves() -> pa.Table:
    """Curves of 20 images and 3 layers: probe right for the first 5, 10, 20 images; shuffle for 18, 10, 2."""

    def column(hits):
        return pa.array([0] * hits + [3] * (20 - hits), pa.int16())

    columns = {"index": pa.array(range(20)), "rank_intact": column(18)}
    for layer, (probe, shuffle) in enumerate([(5, 18), (10, 10), (20, 2)]):
        columns |= {
            f"rank_probe_{layer:02d}": column(probe),
            f"rank_shuffle_{layer:02d}": column(shuffle),
            f"rank_donor_{layer:02d}": column(20 - shuffle),
            f"rank_lens_{layer:02d}": column(probe),
        }
        columns |= {f"rank_restoration_{layer:02d}_{j:02d}": column(layer + j) for j in range(layer, 3)}
    return curves_table(pa.table(columns), FACTS)


def test_the_table_counts_what_the_ranks_say(curves):
    assert curves.schema == CURVES
    rows = {(r["curve"], r["layer"], r["probed_layer"], r["metric"]): r for r in curves.to_pylist()}
    assert rows["probe", 1, None, "accuracy"]["value"] == 0.5
    assert rows["probe", 1, None, "top5"]["value"] == 1.0
    assert rows["lens", 0, None, "identifiability"]["value"] == pytest.approx((5 * 1 + 15 * 0.7) / 20)
    assert rows["restoration", 1, 2, "accuracy"]["value"] == 3 / 20
    assert rows["shuffle", 2, None, "accuracy"]["ci_low"] < 0.1 < rows["shuffle", 2, None, "accuracy"]["ci_high"]


def trace(fig, name):
    return next(t for t in fig.data if t.name == name and t.showlegend is not False)


def test_the_note_figure_shows_the_values_in_the_notes_colours(curves):
    fig = figures.note_figure([(FACTS, curves)])
    probe, shuffle = (trace(fig, figures.CURVE_LOOKS[c][0]) for c in ("probe", "shuffle"))
    assert list(probe.y) == [0.25, 0.5, 1.0]
    assert list(shuffle.y) == [0.9, 0.5, 0.1]
    assert (probe.line.color, shuffle.line.color) == (style.BLUE, style.ORANGE)
    assert trace(fig, "output, intact").line.dash == "dash"
    floor = trace(fig, "floor: the output follows the donor")
    assert (floor.line.dash, list(floor.y)) == ("dot", [0.15, 0.15])
    assert [round(x, 3) for x in probe.customdata[1]] == [0.299, 0.701, 20]
    assert "[%{customdata[0]:.3f}, %{customdata[1]:.3f}], n = %{customdata[2]}" in probe.hovertemplate


def test_the_cls_only_curve_is_left_out_where_it_does_not_exist(curves):
    names = {t.name for t in figures.note_figure([(FACTS, curves)]).data}
    assert figures.CURVE_LOOKS["shuffle_cls_only"][0] not in names


def test_published_curves_are_overlaid_for_the_published_models_only(curves):
    fig = figures.note_figure([(FACTS, curves)], published=True)
    assert trace(fig, "published probe").y[0] == 0.049
    other = replace(FACTS, model="zoo/vit")
    with pytest.raises(RequestError, match="facebook/dinov2-base"):
        figures.note_figure([(other, curves)], published=True)
    both = figures.note_figure([(other, curves), (FACTS, curves)], published=True)
    shown = [t.name for t in both.data if t.showlegend is not False]
    assert len(shown) == len(set(shown))
    assert "published probe" in shown


def test_what_a_replacement_costs_is_drawn(curves):
    fig = figures.cost_by_layer(curves, FACTS)
    lost = trace(fig, "output")
    assert list(lost.y) == pytest.approx([0.0, 0.4, 0.8])
    assert list(trace(fig, "all there is to lose: down to the floor").y) == pytest.approx([0.75, 0.75])


def test_legends_say_what_was_replaced_by_what(curves):
    facts = replace(FACTS, mode="mean", group="patches", cls_only="zero")
    names = {t.name for t in figures.note_figure([(facts, curves)]).data}
    assert "output, patches set to the mean at layer" in names
    assert "floor: the best constant answer" in names


def test_the_published_set_up_is_that_of_the_commands(curves):
    """The author's logs: 200 training images a class, the whole validation split; BEiT's curves with five digits."""
    beit = replace(FACTS, model="microsoft/beit-base-patch16-224-pt22k-ft22k")
    fig = figures.note_figure([(beit, curves)], published=True)
    assert trace(fig, figures.PUBLISHED["shuffle"]).y[-1] == 0.00626
    commands = [
        line for line in COMMANDS.read_text().splitlines() if line.startswith("clsinterp run") and "ILSVRC" in line
    ]
    published = figures.published_curves()
    assert [line.split()[2] for line in commands] == list(published["checkpoints"].values())
    for line in commands:
        assert "--train-per-class 200 --test-split validation" in line
    assert "200 train images per class" in published["setup"]
    assert "the validation split" in published["setup"]


def test_lens_donor_and_restoration_figures(curves):
    lens = figures.lens_by_layer(curves, FACTS)
    assert trace(lens, "lens identifiability").yaxis == "y2"
    donor = figures.donor_by_layer(curves, FACTS)
    assert list(trace(donor, figures.CURVE_LOOKS["donor"][0]).y) == [0.1, 0.5, 0.9]
    heat = figures.restoration_by_layer(curves, FACTS).data[0]
    assert [list(row) for row in heat.z] == [[0.0, 0.05, 0.1], [None, 0.1, 0.15], [None, None, 0.2]]


def test_the_page_is_whole_and_asks_for_nothing(curves, tmp_path):
    out = tmp_path / "figure.html"
    save_figure(figures.study_figures([(FACTS, curves)]), out)
    page = out.read_text()
    assert page.count("Plotly.newPlot(") == 5
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?http', page)


def test_static_images(curves, tmp_path):
    """Needs Chrome or Chromium, as the README says; CI installs it."""
    for ending, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
        save_figure([figures.note_figure([(FACTS, curves)])], tmp_path / f"f.{ending}")
        assert (tmp_path / f"f.{ending}").read_bytes().startswith(start)
    with pytest.raises(RequestError, match=r"\.html, \.png, \.svg or \.pdf"):
        save_figure([figures.note_figure([(FACTS, curves)])], tmp_path / "f.gif")


def test_no_runs():
    with pytest.raises(RequestError, match="at least one"):
        figures.note_figure([])
