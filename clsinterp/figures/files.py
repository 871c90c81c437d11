"""Figures as files: one self-contained page, or a static image."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.graph_objects as go
import plotly.io

from clsinterp.errors import RequestError
from clsinterp.figures.layout import PAGE, SCALE, in_column
from clsinterp.files import write


def to_html(figures: Sequence[go.Figure]) -> str:
    """One self-contained page that opens offline: plotly's script once, then every figure."""
    parts = [
        fig.to_html(
            full_html=False,
            include_plotlyjs=(i == 0),
            config={"displaylogo": False},
            div_id=f"figure-{i}",  # plotly's own is random: no page would be the same twice
        )
        for i, fig in enumerate(figures)
    ]
    style = "body{margin:0 auto;max-width:1240px;padding:12px;background:#fff}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>clsinterp</title><style>{style}</style>'
    return f"{head}<body>{''.join(parts)}</body></html>"


def numbered(out: Path, i: int) -> Path:
    """The file of figure `i` from 0 where each needs its own: FILE, FILE-2, FILE-3 and so on.

    Example:
        >>> [numbered(Path("lens.png"), i).name for i in range(3)]
        ['lens.png', 'lens-2.png', 'lens-3.png']
    """
    return out if i == 0 else out.with_stem(f"{out.stem}-{i + 1}")


def save_figure(
    figures: Sequence[go.Figure], out: Path, style: str = "page", inches: float | None = None
) -> dict[Path, list[str]]:
    """Write HTML (all figures on one page), or PNG / SVG / PDF (a file each, see `numbered`; needs the ``png`` extra).

    Args:
        figures: at least one.
        out: the file.
        style: ``page``; or ``paper``, which is as wide as a column, in small print and without a title.
        inches: of the column; default 3.3 where a figure has one panel across, 6.9 where it has several.

    Returns:
        Each file that was written, with the titles of its figures under ``paper``, for the caption.

    Raises:
        RequestError: an unknown ending or style, no width of a column, or no kaleido or browser for a static image.
        RunError: the file cannot be written.
    """
    if style not in ("page", "paper"):
        raise RequestError(f"style {style!r} was given; page or paper is expected.")
    if inches is not None and (style == "page" or not 2 <= inches <= 20):
        raise RequestError(f"a width of {inches:g} inches was given; 2 to 20 are expected, and the style paper.")
    if out.suffix not in (".html", ".png", ".svg", ".pdf"):
        raise RequestError(f"{out.name}: a figure ends in .html, .png, .svg or .pdf.")
    captions: list[str] = []
    if style == "paper":
        placed = [in_column(fig, inches) for fig in figures]
        figures, captions = [fig for fig, _ in placed], [caption for _, caption in placed]
    if out.suffix == ".html":
        page = to_html(figures)
        write(out, lambda p: p.write_text(page, encoding="utf-8"))
        return {out: captions}
    pictures = _drawn(figures, out, style)  # before any is written: a browser may be missing
    for i, picture in enumerate(pictures):
        write(numbered(out, i), partial(Path.write_bytes, data=picture))
    return {numbered(out, i): captions[i : i + 1] for i in range(len(pictures))}


def _drawn(figures: Sequence[go.Figure], out: Path, style: str) -> list[bytes]:
    """Static images of the kind that `out` ends in, all by one browser."""
    # A paper's bitmap has 300 dots to the inch; of vectors, only the size changes.
    finer = (300 / 96 if style == "paper" else 2) if out.suffix == ".png" else 1
    scale = finer * (SCALE if style == "paper" else 1)
    widths = [fig.layout.width if style == "paper" else PAGE for fig in figures]
    heights = [fig.layout.height for fig in figures]
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}{out.suffix}") for i in range(len(figures))]
        try:
            plotly.io.write_images(list(figures), files, width=widths, height=heights, scale=scale)
            return [file.read_bytes() for file in files]  # what was not drawn is not there, and nothing says why
        except (ValueError, ImportError, RuntimeError, FileNotFoundError) as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise RequestError(
                f"cannot draw {out.name}: {first} Static images need `pip install clsinterp[png]` and a Chrome or Chromium."
            ) from error
