"""Every palette, seen with normal sight and without one kind of cones."""

import itertools
import re
from pathlib import Path

import pytest
from colour_vision import SIGHTS, ciede2000, lab, nearest

import clsinterp
from clsinterp.figures import style
from clsinterp.figures.colour import BLACK, WHITE, as_text, contrast, ink, luminance, of_scale, over, rgb
from clsinterp.views import maps, trajectory

APART = 13  # CIEDE2000 of any two colours of a palette; dashes, symbols and letters come on top
LINE = 3  # contrast of a line with what is behind it: WCAG 2.2, 1.4.11
TEXT = 4.5  # of text: WCAG 2.2, 1.4.3
CSS = Path(clsinterp.__file__).parent / "explore" / "assets" / "explore.css"
PALETTES = {
    "figures": (*style.COLOURS, style.GREY),
    "trajectories": trajectory.LINES,
    "classes of a map": (*maps.CLASS_COLOURS, maps.OTHER_COLOUR),
    "same and other": (maps.SAME, maps.CHANGED),
}


def test_distances_are_those_of_the_paper():
    """Pairs from the table of Sharma, Wu and Dalal (2005)."""
    for one, other, distance in (
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ):
        assert ciede2000(one, other) == pytest.approx(distance, abs=1e-4)
        assert ciede2000(other, one) == pytest.approx(distance, abs=1e-4)


def test_sights_leave_greys_alone_and_lose_what_they_are_named_for():
    for sight in SIGHTS:
        assert lab(rgb("#ffffff"), sight) == pytest.approx((100, 0, 0), abs=0.05)
        assert lab(rgb("#777777"), sight)[1:] == pytest.approx((0, 0), abs=0.05)
    for sight, one, other in (
        ("protanopia", "#ff7f0e", "#2ca02c"),  # orange, green
        ("deuteranopia", "#e377c2", "#17becf"),  # pink, cyan
        ("tritanopia", "#00a000", "#009aa0"),  # green, cyan
    ):
        assert ciede2000(lab(rgb(one), sight), lab(rgb(other), sight)) < 7
        assert ciede2000(lab(rgb(one)), lab(rgb(other))) > 30


@pytest.mark.parametrize("name", PALETTES)
def test_any_two_colours_of_a_palette_are_told_apart(name):
    distance, pair = nearest({c: rgb(c) for c in PALETTES[name]})
    assert distance >= APART, f"{name}: {pair} are {distance:.1f} apart"


def test_lines_stand_out_from_what_is_behind_them():
    dark = re.findall(r"--card: (#\w{6})", CSS.read_text())[1]  # the second set of variables: the dark page
    assert luminance(rgb(dark)) < 0.05
    for name, grounds in (("figures", ["#ffffff"]), ("trajectories", ["#ffffff", dark])):
        for colour in PALETTES[name]:
            for ground in grounds:
                assert contrast(rgb(colour), rgb(ground)) >= LINE, f"{name}: {colour} on {ground}"


def test_letters_are_read_on_every_class_be_the_picture_under_it_dark_or_pale():
    ends = [colour for _, colour in (maps.DIFFERENCE[0], maps.DIFFERENCE[-1])]
    for colour in (*PALETTES["classes of a map"], *ends):
        text = re.search(r"#\w{6}", maps._sign("A", colour))[0]
        for ground in (rgb(colour), *(over(rgb(colour), (grey,) * 3, maps.OVERLAY) for grey in maps.GREYS)):
            assert contrast(rgb(text), ground) >= TEXT, colour


def lightness(scale, sight):
    return [lab(of_scale(scale, i / 100), sight)[0] for i in range(101)]


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("scale", [style.SEQUENTIAL, "Viridis", "Viridis_r", "Cividis"])
def test_sequential_scales_only_rise_or_only_fall(scale, sight):
    light = lightness(scale, sight)
    up = light[-1] > light[0]
    assert all((b > a) == up for a, b in itertools.pairwise(light))
    assert abs(light[-1] - light[0]) > 60


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("scale", [style.DIVERGING, maps.DIFFERENCE])
def test_diverging_scales_fall_to_both_sides_and_end_apart(scale, sight):
    light = lightness(scale, sight)
    below, above = light[50::-1], light[50:]
    for side in (below, above):
        assert all(b < a + 1e-6 for a, b in itertools.pairwise(side))
    assert ciede2000(lab(of_scale(scale, 0), sight), lab(of_scale(scale, 1), sight)) > 20


def test_ink_is_read_on_any_ground():
    for red in range(0, 256, 15):
        for green in range(0, 256, 15):
            for blue in range(0, 256, 51):
                ground = (red, green, blue)
                assert contrast(rgb(ink(ground)), ground) >= TEXT
    assert (ink(rgb("#ffffff")), ink(rgb("#000000"))) == (BLACK, WHITE)


@pytest.mark.parametrize("colour", PALETTES["figures"])
def test_a_colour_as_text_is_read_and_keeps_its_hue(colour):
    dark = as_text(colour)
    assert contrast(rgb(dark), rgb("#ffffff")) >= TEXT
    top = max(rgb(colour))
    assert [c / top for c in rgb(colour)] == pytest.approx([c / max(rgb(dark)) for c in rgb(dark)], abs=0.02)
