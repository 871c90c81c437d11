"""What can be read on a colour: luminance, contrast, and ink for the numbers of a heatmap (WCAG 2.2)."""

from typing import Any

from plotly.colors import convert_colors_to_same_type, get_colorscale, sample_colorscale

RGB = tuple[float, float, float]
BLACK, WHITE = "#000000", "#ffffff"
READABLE = 4.5  # contrast of text with its ground: WCAG's level AA


def rgb(colour: str) -> RGB:
    """Red, green and blue of ``#rrggbb`` or ``rgb(r, g, b)``, each from 0 to 255."""
    (found,), _ = convert_colors_to_same_type([colour], colortype="tuple")
    red, green, blue = (255 * part for part in found)
    return red, green, blue


def luminance(colour: RGB) -> float:
    """Relative luminance of an sRGB colour, 0 (black) to 1 (white)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: RGB, other: RGB) -> float:
    """WCAG's contrast ratio of two colours, 1 (none) to 21 (black on white)."""
    low, high = sorted(luminance(c) + 0.05 for c in (one, other))
    return high / low


def ink(*grounds: RGB) -> str:
    """Black or white, whichever is read better on all of `grounds`; on a single one its contrast is 4.58 or more."""
    return max((BLACK, WHITE), key=lambda text: min(contrast(rgb(text), ground) for ground in grounds))


def written(text: str, colour: str) -> str:
    """`text` in that colour, for plotly's texts: a heatmap has one colour for all of them."""
    return f'<span style="color:{colour}">{text}</span>' if text else ""


def of_scale(scale: Any, share: float) -> RGB:
    """The colour of a plotly colour scale (name or list) at `share` of its range; outside of it, that of the end."""
    steps = [
        list(step) for step in (get_colorscale(scale) if isinstance(scale, str) else scale)
    ]  # tuples it cannot read
    (found,) = sample_colorscale(steps, [min(1.0, max(0.0, share))], colortype="tuple")
    red, green, blue = (255 * part for part in found)
    return red, green, blue


def over(colour: RGB, ground: RGB, opacity: float) -> RGB:
    """`colour` as it looks on `ground` at that opacity."""
    red, green, blue = (opacity * c + (1 - opacity) * g for c, g in zip(colour, ground, strict=True))
    return red, green, blue


def as_text(colour: str) -> str:
    """`colour`, darkened until it can be read as text on white."""
    share, found = 1.0, rgb(colour)
    while contrast(found, rgb(WHITE)) < READABLE:
        share -= 0.02
        found = over(rgb(colour), (0.0, 0.0, 0.0), share)
    return f"#{''.join(f'{int(c):02x}' for c in found)}"
