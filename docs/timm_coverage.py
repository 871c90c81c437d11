"""Counts how many of timm's pretrained vision transformers the rows serve, and writes the tables of docs/timm.md.

Every architecture is built on torch's meta device, which takes a minute and no download: ``python docs/timm_coverage.py``.
"""

from collections import Counter, defaultdict
from pathlib import Path

import timm
import torch
from timm.models import is_model_pretrained, model_entrypoint

from clsinterp.models.module_tree import verify
from clsinterp.models.rows.timm import ROWS, misfit, row_of, sizes_of

PAGE = Path(__file__).with_name("timm.md")
BEGIN, END = "<!-- written by timm_coverage.py -->", "<!-- end -->"
# The files of timm that hold plain vision transformers: sequences of blocks of one width.
FILES = (
    "vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam", "deit", "beit",
    "eva", "naflexvit",
)  # fmt: skip


def pretrained() -> dict[str, list[str]]:
    """Architecture -> its pretrained names, of the files above."""
    found = defaultdict(list)
    for name in timm.list_pretrained():
        architecture = name.partition(".")[0]
        if model_entrypoint(architecture).__module__.rpartition(".")[2] in FILES and is_model_pretrained(name):
            found[architecture].append(name)
    return dict(found)


def counted() -> tuple[Counter, dict[str, list[str]]]:
    """How many names each row serves; and reason -> names that no row serves."""
    served: Counter = Counter()
    left: defaultdict[str, list[str]] = defaultdict(list)
    for architecture, names in pretrained().items():
        with torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False)
        if reason := misfit(model):
            left[reason] += names
            continue
        verify(model, row_of(model), sizes_of(model, tuple(model.patch_embed.img_size)))
        served[type(model).__name__] += len(names)
    return served, dict(left)


def tables() -> str:
    """The part of the page that is written by this script."""
    served, left = counted()
    n_served, n_left = sum(served.values()), sum(map(len, left.values()))
    rows = [f"| `{row.name}` | `{row.hf_class}` | {served[row.hf_class]} |" for row in ROWS]
    without = [
        f"| {reason} | {len(names)} | {', '.join(f'`{name}`' for name in sorted(names))} |"
        for reason, names in sorted(left.items(), key=lambda item: -len(item[1]))
    ]
    return "\n".join(
        [
            f"Of the {n_served + n_left} names of pretrained vision transformers in timm {timm.__version__}, "
            f"{n_served} are served and {n_left} are not.",
            "",
            "| row | class of timm | names served |",
            "|---|---|---|",
            *rows,
            "",
            "| why not | names | which |",
            "|---|---|---|",
            *without,
        ]
    )


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
