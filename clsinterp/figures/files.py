"""Figures as files: one self-contained page, or a static image."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from clsinterp.errors import RequestError
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


def save_figure(figures: Sequence[go.Figure], out: Path) -> None:
    """Write HTML (all figures on one page), or PNG / SVG / PDF (the first one; needs the ``png`` extra).

    Raises:
        RequestError: an unknown ending, or no kaleido or browser for a static image.
        RunError: the file cannot be written.
    """
    if out.suffix == ".html":
        page = to_html(figures)
        write(out, lambda p: p.write_text(page, encoding="utf-8"))
        return
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise RequestError(f"{out.name}: a figure ends in .html, .png, .svg or .pdf.")
    try:
        picture = figures[0].to_image(out.suffix[1:], width=1280, scale=2 if out.suffix == ".png" else 1)
    except (ValueError, ImportError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise RequestError(
            f"cannot draw {out.name}: {first} Static images need `pip install clsinterp[png]` and a Chrome or Chromium."
        ) from error
    write(out, lambda p: p.write_bytes(picture))
