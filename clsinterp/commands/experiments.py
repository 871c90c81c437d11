"""``clsinterp experiments``, and the list it shows."""

from clsinterp.console import command, out_console

# The studies that stand as scripts in ``experiments/`` of the repository, with a line each.
STUDIES: dict[str, str] = {
    "note": "The note: where the label can be read from the CLS token, and where the output depends on it.",
    "restoration": "Does the network write the label into the CLS token again after a swap?",
    "readouts": "Read-outs from every layer with a fresh CLS token: how good, how alike, what their average buys.",
    "class_space": "Tokens in class embedding space: where the class appears, and which sublayers put it there.",
    "causality": "Causality is not decodability: which tokens a counting model uses, and which tell the count.",
    "frequency": "How low-frequency is the CLS token, and is its learned embedding tied to the source data?",
    "ablations": "Kinds of ablation side by side: permuted, deranged, cross-label, mean, zero and noise.",
    "donors": "Whom does the output follow after a CLS swap: availability against use as one number per model.",
    "erasure": "The label erased from the CLS token, linearly: what the output loses, and where the label comes back.",
    "subspace": "Is what is read what is used? The CLS token swapped in part, inside and outside of what a probe reads.",
    "rereading": "Where does the CLS token read what the output uses? Its attention knocked out, block by block.",
    "head_patching": "Which heads carry the class from the patches to the CLS token?",
}


@command
def experiments() -> None:
    """List the studies that stand as short scripts in the repository.

    Examples:
        clsinterp experiments
    """
    from rich.table import Table

    table = Table("script", "asks", title="Experiments")
    for name, line in STUDIES.items():
        table.add_row(f"experiments/{name}.py", line)
    out_console.print(table)
    out_console.print(
        "In a clone of the repository: python experiments/NAME.py MODEL --data DATA --out DIR --limit N; --help says what "
        "each measures, experiments/README.md shows what it draws.",
        highlight=False,
    )
