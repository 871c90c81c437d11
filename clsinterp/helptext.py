"""What ``--help`` shows: options by what they are about, examples at the end, and no name cut at any width.

rich cuts the names of options to make its columns fit, and draws for a screen where there is a pipe; this is plain text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

# What an option is about, whichever command has it, in the order shown; what stands nowhere is shown first.
PANELS: dict[str, tuple[str, ...]] = {
    "Images": (
        "data", "images", "train_split", "test_split", "train_per_class", "test_per_class", "limit", "image_column",
        "label_column", "label_map", "image_size", "on_bad_image",
    ),
    "What is measured": ("layers", "mode", "group", "swaps", "cls_only", "also", "final_norm", "alphas", "head", "seed"),
    "What is shown": ("quantity", "class_name", "layer", "grid", "swap_with", "at", "published"),
    "Model": ("classifier", "config", "revision", "allow_pickle", "device", "dtype", "device_map", "batch_size", "memory_gb"),
    "Many workers": ("shard", "stage", "wait", "engine", "jobs", "address", "workers"),
    "A server": ("remote", "host", "port", "open_", "per_request"),
    "Result": ("out", "resume", "overwrite", "quiet"),
    "Other": ("install_completion", "show_completion", "asked", "verbose", "help"),
}  # fmt: skip
COMMAND_PANELS: dict[str, tuple[str, ...]] = {
    "The note": ("demo", "run", "note", "merge", "figure", "compare"),
    "Looking inside": ("lens", "explore", "experiments"),
    "Checkpoints and speed": ("check", "models", "zoo", "bench"),
}
EXAMPLES = "Examples:"


def by_panel(names: Iterable[str], panels: dict[str, tuple[str, ...]], rest: str) -> dict[str, list[str]]:
    """Panel -> its members among `names`, in the panel's order; those in none stand in `rest`, which comes first."""
    asked = list(names)
    known = {name for members in panels.values() for name in members}
    found = {rest: [name for name in asked if name not in known]}
    found |= {panel: [name for name in members if name in asked] for panel, members in panels.items()}
    return {panel: members for panel, members in found.items() if members}


def apart(text: str) -> tuple[str, list[str]]:
    """A docstring's prose, and the lines of its examples."""
    prose, _, examples = inspect.cleandoc(text).partition(f"\n{EXAMPLES}\n")
    return prose.strip(), inspect.cleandoc(examples).splitlines() if examples.strip() else []


CHOICES = re.compile(r"[\[<](\w+(?:\|\w+)+)[\]>]")


def record(option: Any, ctx: Any) -> tuple[str, str] | None:
    """Names and help of an option; choices stand in the help, where there is room for them."""
    found = option.get_help_record(ctx)
    if found is None or (choices := CHOICES.search(found[0])) is None:
        return found
    says = option.help or ""
    listed = choices[1].split("|")
    said = found[1] if all(one in says for one in listed) else f"{', '.join(listed)}. {found[1]}"
    return CHOICES.sub(str(option.name).upper(), found[0]), said


def write_text(text: str, formatter: Any) -> None:
    """The prose of a docstring, paragraph by paragraph."""
    for paragraph in apart(text)[0].split("\n\n"):
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(" ".join(paragraph.split()))


def write_examples(text: str, formatter: Any) -> None:
    """The examples of a docstring, as they stand."""
    if lines := apart(text)[1]:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class CommandHelp(TyperCommand):
    """A command that shows its help so."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Prose only."""
        write_text(self.help or "", formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by panel, then examples."""
        records = {
            str(p.name): (p.param_type_name, found)
            for p in self.get_params(ctx)
            if (found := record(p, ctx)) is not None
        }
        arguments = [found for kind, found in records.values() if kind == "argument"]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        options = [name for name, (kind, _) in records.items() if kind == "option"]
        for panel, names in by_panel(options, PANELS, "Options").items():
            with formatter.section(panel):
                formatter.write_dl([records[name][1] for name in names])
        write_examples(self.help or "", formatter)


class GroupHelp(TyperGroup):
    """A group of commands that shows its help so."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Prose only."""
        write_text(self.help or "", formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands by panel, then options, then examples."""
        self.format_commands(ctx, formatter)
        records = [found for p in self.get_params(ctx) if (found := p.get_help_record(ctx)) is not None]
        if records:
            with formatter.section("Options"):
                formatter.write_dl(records)
        write_examples(self.help or "", formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each with the first sentence of its help."""
        for panel, names in by_panel(self.list_commands(ctx), COMMAND_PANELS, "Commands").items():
            with formatter.section(panel):
                rows = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl(
                    [(name, apart(one.help or "")[0].split("\n\n")[0].replace("\n", " ")) for name, one in rows if one]
                )
