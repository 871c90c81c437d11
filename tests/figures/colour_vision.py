"""How far apart colours look, and to whom: written out from the papers, for the tests of palettes.

Loss of one kind of cones: Machado, Oliveira and Fernandes (2009), "A physiologically-based model for simulation of color vision
deficiency", severity 1, on linear RGB. Distance: CIEDE2000 (Sharma, Wu and Dalal 2005), D65.
"""

import numpy as np

SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour: tuple[float, float, float], sight: str = "normal") -> tuple[float, float, float]:
    """CIELAB of an sRGB colour (0 to 255) as `sight` sees it."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(SIGHTS[sight] @ linear, 0, 1)
    t = XYZ @ seen / XYZ.sum(1)
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """The distance of two CIELAB colours; about 1 can just be seen side by side."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = 0 if grey else (h2 - h1 + 180) % 360 - 180
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    between = h1 + h2 if grey else (h1 + turn / 2) % 360
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2

    def cosine(times: int, shift: float) -> float:
        return np.cos(np.radians(times * between + shift))

    t = 1 - 0.17 * cosine(1, -30) + 0.24 * cosine(2, 0) + 0.32 * cosine(3, 6) - 0.20 * cosine(4, -63)
    parts = (
        (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)),
        (c2 - c1) / (1 + 0.045 * chroma),
        hue / (1 + 0.015 * chroma * t),
    )
    twist = (
        -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((between - 275) / 25) ** 2))))
    )
    return float(np.sqrt(sum(p**2 for p in parts) + twist * parts[1] * parts[2]))


def nearest(colours: dict[str, tuple[float, float, float]]) -> tuple[float, str]:
    """The smallest distance of two of `colours` (name -> sRGB) to any sight, and which it is."""
    names = list(colours)
    return min(
        (ciede2000(lab(colours[a], sight), lab(colours[b], sight)), f"{a} and {b}, {sight}")
        for sight in SIGHTS for i, a in enumerate(names) for b in names[:i]
    )  # fmt: skip
