"""``clsinterp figure`` on a study's folder, and in the style of a paper."""

import re

import plotly.graph_objects as go
import pytest
from command_line import invoke, invoke_flat

from clsinterp.figures.layout import finish
from clsinterp.figures.pieces import panel_grid


@pytest.fixture
def study(tmp_path):
    """A folder as a study leaves it, as far as its figure goes."""
    fig = panel_grid(["one<br><sup>n = 7 images</sup>", "two<br><sup>n = 7 images</sup>"])
    for col in (1, 2):
        fig.add_trace(go.Scatter(x=[0, 1], y=[0.2, 0.9], name="probe"), row=1, col=col)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "figure.json").write_text(finish(fig, "m: the probe reads 0.90", note="bands: 95%").to_json())
    return folder


def test_a_study_is_drawn_again_as_wide_as_a_column_and_its_title_is_the_caption(study, tmp_path):
    out = tmp_path / "f.html"
    status, said = invoke_flat("figure", study, "--style", "paper", "--width", 5, "--out", out)
    assert status == 0
    assert said.endswith("caption: m: the probe reads 0.90. bands: 95%")
    page = out.read_text()
    assert '"width":672' in page  # 5 inches, drawn in print that becomes 7.5 points when all is made smaller
    assert '"text":"m: the probe reads' not in page
    status, said = invoke_flat("figure", study, "--out", out)
    assert (status, "caption" in said) == (0, False)
    assert '"text":"m: the probe reads 0.90' in out.read_text()


def test_a_static_image_is_written_of_every_figure(study, tmp_path):
    first = (study / "figure.json").read_text()
    (study / "figure-2.json").write_text(first.replace("m: the probe reads 0.90", "m: figure 2"))
    status, said = invoke_flat("figure", study, "--out", tmp_path / "f.svg")
    assert status == 0, said
    assert {p.name for p in tmp_path.glob("f*")} == {"f.svg", "f-2.svg"}
    assert "m: figure 2" in (tmp_path / "f-2.svg").read_text()
    assert invoke("figure", study, "--out", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().count('<div id="figure-') == 2


def test_what_does_not_fit_is_refused(study, tmp_path):
    for options, said in (
        (("--style", "poster"), "page or paper is expected"),
        (("--width", 5), "the style paper"),
        (("--style", "paper", "--width", 99), "2 to 20 are expected"),
        (("--published",), "drawn alone"),
    ):
        status, output = invoke_flat("figure", study, "--out", tmp_path / "f.html", *options)
        assert (status, said in output, (tmp_path / "f.html").exists()) == (2, True, False), output
    assert "drawn alone" in invoke_flat("figure", study, study, "--out", tmp_path / "f.html")[1]
    (study / "figure.json").write_text("{")
    status, output = invoke("figure", study, "--out", tmp_path / "f.html")
    assert status == 2
    assert re.search("damaged", output)
