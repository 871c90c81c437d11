"""Class names in sentences, as a text tower reads them."""

from __future__ import annotations

from collections.abc import Sequence

from clsinterp.errors import RequestError

TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a photo that shows a {}.",
    "a close view of a {}.",
    "a small picture of a {}.",
    "there is a {} in the picture.",
)
"""Sentences that `prompts` puts a class name into where none are given."""


def prompts(classes: Sequence[str], templates: Sequence[str] | None = None) -> list[list[str]]:
    """For each class its name in every template.

    Args:
        classes: names, as a caption would have them.
        templates: sentences with ``{}`` where the name goes; None is `TEMPLATES`.

    Raises:
        RequestError: no class, a class without a name, the same name twice, no template, or one without ``{}``.

    Example:
        >>> prompts(["cat"], ["a photo of a {}.", "{}"])
        [['a photo of a cat.', 'cat']]
    """
    if isinstance(classes, str) or not classes:
        raise RequestError(f"classes={classes!r} was given; a list of class names is expected.")
    names = [str(name).strip() for name in classes]
    if not all(names):
        raise RequestError(f"class {names.index('')} has no name; a text head is made of names.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(f"classes names {', '.join(map(repr, twice))} twice; a text head can't tell them apart.")
    if templates is not None and (isinstance(templates, str) or not templates):
        raise RequestError(
            f"templates={templates!r} was given; a list of sentences such as {TEMPLATES[0]!r} is expected."
        )
    chosen = TEMPLATES if templates is None else templates
    for template in chosen:
        if "{}" not in template:
            raise RequestError(
                f"template {template!r} has no place for a class name; a sentence such as {TEMPLATES[0]!r} is expected."
            )
    return [[template.replace("{}", name) for template in chosen] for name in names]
