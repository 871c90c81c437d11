"""Colours and marks that every figure shares."""

# Chosen by a search: any two are told apart with normal sight and without one kind of cones (CIEDE2000 of 13 or more), and all
# by three to one from white; `tests/figures/test_colours.py` measures it. Red is a rust, purple an indigo, cyan a sky blue.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#1564d1", "#e7750a", "#006346", "#b34c05", "#2605a5", "#777777"
BROWN, PINK, CYAN = "#522500", "#b586a9", "#0f9af3"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, CYAN)
SEQUENTIAL, DIVERGING = "Viridis", "RdBu"
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "cross", "star", "hexagon")


def rgba(colour: str, alpha: float) -> str:
    """A hex colour with transparency."""
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{alpha})"
