"""An extension of griffe: what our docstrings call Example is a section of runnable lines, which griffe knows as Examples."""

import re
from typing import Any

import griffe

TITLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Rename the section, so that its lines are shown as code and what they print, not as quoted text."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Called by griffe for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = TITLE.sub(r"\1Examples:", obj.docstring.value)
