"""The tutorials as pages: their text, their code, and what the code shows when it is run."""

import html
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
FIGURE = "application/vnd.plotly.v1+json"
SCRIPT = "plotly.js"  # beside the pages that have figures


def executed(path: Path) -> Any:
    """The notebook, run from the first cell to the last in an empty folder; its figures as numbers."""
    notebook = nbformat.read(path, as_version=4)
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": search, "PLOTLY_RENDERER": "plotly_mimetype"}
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        quiet = ["--log-level=ERROR"]  # ipykernel warns of its unencrypted sockets, which are this machine's own
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources=resources, extra_arguments=quiet
        )
        client.execute(env=env)
    return notebook


def as_page(notebook: Any, name: str) -> str:
    """Markdown of a notebook: text, code, what the code shows, and a link to the notebook."""
    parts, figures = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if FIGURE in output.get("data", {}):
                parts += [] if figures else [f'<script src="{SCRIPT}"></script>']
                parts.append(drawn(output["data"][FIGURE], figures))
                figures += 1
            elif text := said(output):
                parts.append(f'<pre class="shown">{html.escape(text)}</pre>')
    return "\n\n".join([*parts, f"[The notebook]({name}.ipynb)"])


def said(output: Any) -> str:
    """What a cell printed, or the value it ends with; bars and warnings of the libraries are left out."""
    if output.output_type == "execute_result":
        return str(output["data"].get("text/plain", "")).rstrip()
    return str(output.text).rstrip() if output.get("name") == "stdout" else ""


def drawn(figure: Any, place: int) -> str:
    """HTML that draws a figure, `place` being its number on the page, at its own width in a box that scrolls."""
    name = f"figure-{place}"
    numbers = json.dumps({"data": figure["data"], "layout": figure["layout"]}).replace("</", "<\\/")
    draw = f'Plotly.newPlot("{name}", {numbers}, {{responsive: true, displaylogo: false}})'
    return f'<div class="figure"><div id="{name}"></div></div>\n<script>{draw}</script>'.replace("\n\n", "\n")


def script() -> str:
    """What draws figures: plotly's own, so that nothing is fetched from elsewhere."""
    return get_plotlyjs()
