"""What holds in every figure: what a reviewer would ask for first."""

import re

import plotly.io as pio
import pytest
from colour_vision import nearest
from drawn import figure, on_paper, table

from clsinterp.errors import RequestError
from clsinterp.figures import style
from clsinterp.figures.colour import contrast, of_scale, rgb
from clsinterp.figures.files import save_figure
from clsinterp.figures.layout import SCALE, SMALL, in_column
from clsinterp.studies.tidy import one, pick

NAMES = (
    "ablations", "causality", "context", "class_space", "donors", "gap", "confusability", "erasure", "frequency", "head_patching",
    "readouts", "calibration", "restoration", "rereading", "subspace", "headline",
    *(f"{runs} {i}" for runs in ("run", "five runs") for i in range(5)),
)  # fmt: skip
each = pytest.mark.parametrize("name", NAMES)
PALETTE = {*style.COLOURS, style.GREY, "#333333"}


def both(name):
    return [figure(name), on_paper(name)[0]]


def lines(text):
    return text.split("<br>")


def words(fig):
    """All that is written in a figure."""
    texts = [fig.layout.title.text, *(a.text for a in fig.layout.annotations), *(t.name for t in fig.data)]
    return [text for text in [*texts, *(a.title.text for a in [*fig.select_xaxes(), *fig.select_yaxes()])] if text]


def colour_of(trace):
    colour = trace.line.color if trace.type == "scatter" and "lines" in trace.mode else trace.marker.color
    if colour and colour.startswith("rgba"):
        colour = "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])
    return colour


@each
def test_the_title_says_what_was_found(name):
    title = figure(name).layout.title.text
    assert re.search(r"\d", title)
    assert "?" not in title
    for line in lines(title):
        assert len(re.sub("<.?sup>", "", line)) * (7 if "<sup>" in line else 9.4) <= 1190  # pixels


@each
def test_every_panel_says_one_n_in_the_second_line_of_its_title(name):
    if name == "headline":
        assert "n = 1000" in figure(name).layout.title.text
        return
    panels = [a.text for a in figure(name).layout.annotations if a.yref == "paper"]
    assert panels
    for text in panels:
        assert len(re.findall(r"n = \d+", text)) == 1, text
        assert re.search(r"n = \d", lines(text)[-1])


@each
def test_nothing_in_one_legend_looks_like_something_else(name):
    for fig in both(name):
        if fig.layout.showlegend is False:
            continue
        seen = {}
        for trace in fig.data:
            if trace.type not in ("scatter", "bar") or trace.showlegend is False or not trace.name:
                continue
            line = trace.type == "scatter" and "lines" in trace.mode and not trace.fill
            fill, symbol = (trace.fill, trace.marker.symbol) if trace.type == "scatter" else (None, None)
            looks = trace.legend, trace.type, colour_of(trace), line and (trace.line.dash or "solid"), fill, symbol
            assert seen.setdefault(looks, trace.name) == trace.name, f"{seen[looks]} and {trace.name}: {looks}"
            key = (trace.legend, trace.name)
            assert key not in seen, f"{key} twice"
            seen[key] = trace.name


@each
def test_lines_take_their_colours_from_the_palette(name):
    used = {colour_of(t) for t in figure(name).data if t.type in ("scatter", "bar") and t.meta != "band"} - {None}
    assert used <= PALETTE
    shown = {c: rgb(c) for c in used - {"#333333"}}
    assert len(shown) < 2 or nearest(shown)[0] >= 13


@each
def test_numbers_are_read_on_the_cells_they_stand_in(name):
    for trace in figure(name).select_traces({"type": "heatmap"}):
        for values, texts in zip(trace.z, trace.text if trace.text is not None else (), strict=False):
            for value, text in zip(values, texts, strict=True):
                if value is None:
                    assert text == ""
                    continue
                ink = re.search(r"color:(#\w+)", text)[1]
                cell = of_scale(trace.colorscale, (value - trace.zmin) / (trace.zmax - trace.zmin))
                assert contrast(rgb(ink), cell) >= 4.5


@each
def test_legends_fit_under_their_panels_and_into_the_figure(name):
    for fig in both(name):
        if fig.layout.showlegend is False:
            continue
        layout = fig.layout
        plot = layout.height - layout.margin.t - layout.margin.b
        width = (layout.width or 1200) - layout.margin.l - layout.margin.r
        for legend in {t.legend or "legend" for t in fig.data if t.showlegend is not False and t.name}:
            named = [
                t.name for t in fig.data if (t.legend or "legend") == legend and t.showlegend is not False and t.name
            ]
            here = layout[legend]
            rows = len(named)
            if here.orientation == "h":
                assert max(len(n) for n in named) * 5.6 + 44 <= width
                rows = sum(len(n) * 5.2 + 44 for n in named) / width
            low = here.y * plot - rows * 19
            assert low >= -layout.margin.b, f"{legend} ends {-layout.margin.b - low:.0f} pixels under the figure"


@each
def test_one_vocabulary(name):
    assert not [text for text in words(figure(name)) if re.search("shuffl", text, re.IGNORECASE)]


@each
def test_on_paper_a_figure_is_a_column_wide_with_print_that_can_be_read(name):
    fig, caption = on_paper(name)
    across = len({axis.domain for axis in fig.select_xaxes()})
    inches = 6.9 if across > 1 or name == "headline" else 3.3
    assert fig.layout.width * SCALE / 96 == pytest.approx(inches, abs=0.01)
    assert fig.layout.height < 1.6 * 928 if across > 1 else fig.layout.height < 560
    assert not fig.layout.title.text
    assert caption.startswith(re.split("<br>", figure(name).layout.title.text)[0])
    assert SMALL * SCALE * 72 / 96 > 6  # points


def test_a_figure_read_from_a_file_goes_on_paper_as_the_drawn_one_does():
    for name in ("restoration", "donors"):
        read = pio.from_json(figure(name).to_json())
        assert in_column(read)[0].to_json() == on_paper(name)[0].to_json()


def test_names_at_the_ends_of_lines_need_a_wide_column():
    with pytest.raises(RequestError, match=r"3\.3 inches.*at least 5"):
        in_column(figure("headline"), 3.3)
    assert in_column(figure("headline"), 5.0)[0].layout.width < on_paper("headline")[0].layout.width


def test_vectors_have_the_size_of_the_column(tmp_path):
    ((_, (caption,)),) = save_figure([figure("run 0")], tmp_path / "f.svg", "paper").items()
    text = (tmp_path / "f.svg").read_text()
    assert float(re.search(r'width="([\d.]+)"', text)[1]) == pytest.approx(3.3 * 96, abs=1)
    assert "<text" in text
    assert "zoo/vit: at layer 0 a probe reads" not in text
    assert caption.startswith("zoo/vit: at layer 0 a probe reads the label from 0.69 of CLS tokens")
    save_figure([figure("donors")], tmp_path / "f.pdf", "paper", 5)
    box = re.search(rb"MediaBox ?\[0 0 ([\d.]+) ", (tmp_path / "f.pdf").read_bytes())
    assert float(box[1]) == pytest.approx(5 * 72, abs=1)
    with pytest.raises(RequestError, match="page or paper"):
        save_figure([figure("donors")], tmp_path / "f.svg", "poster")
    for wrong in (("page", 3.3), ("paper", 0.5)):
        with pytest.raises(RequestError, match="2 to 20"):
            save_figure([figure("donors")], tmp_path / "f.svg", *wrong)


def test_titles_take_their_numbers_from_the_tables():
    def value(name, **where):
        return f"{one(table(name), **where)['value']:.2f}"

    erasure, subspace, back = (figure(n).layout.title.text for n in ("erasure", "subspace", "restoration"))
    assert f"right in {value('erasure', curve='erased', layer=6)}" in erasure
    assert f"swap in {value('erasure', curve='shuffle', layer=6)}" in erasure
    swaps = pick(table("subspace"), curve="shuffle", measure="donor", draw=None)
    assert f"turns {max(row['value'] for row in swaps):.2f} of outputs" in subspace
    at = {"layer": 6, "probed_layer": 11}
    for curve in ("same probe", "refitted probe"):
        assert value("restoration", curve=curve, **at) in back
    rows = table("ablations").to_pylist()
    intact = one(table("ablations"), curve="intact")["value"]
    lost = {}
    for row in rows:
        if row["layer"] is not None:
            lost.setdefault(row["curve"], []).append(intact - row["value"])
    worst = max(lost, key=lambda k: sum(lost[k]))
    said = figure("ablations").layout.title.text.replace("<br>", " ")
    assert f"{worst.replace('_', ' ')} costs most ({sum(lost[worst]) / 12:.2f}" in said
