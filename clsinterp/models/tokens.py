"""Which token stands where: prefix groups first, then the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Never

from clsinterp.errors import RequestError

Where = int | slice | list[int]  # selects tokens on the token axis
GROUPS = ("cls", "distill", "registers", "patches")


@dataclass(frozen=True)
class TokenLayout:
    """Token groups as slices of the token axis.

    Attributes:
        slices: group name -> slice; ``patches`` runs to the end, so any image size fits.
        n_prefix: tokens before the first patch.
    """

    slices: dict[str, slice]
    n_prefix: int
    family: str

    @classmethod
    def of(cls, family: str, prefix: Sequence[tuple[str, int]]) -> TokenLayout:
        """The layout of a model of that family with the token groups `prefix`, (name, how many), before its patches."""
        slices, start = {}, 0
        for group, n in prefix:
            slices[group] = slice(start, start + n)
            start += n
        slices["patches"] = slice(start, None)
        return cls(slices, start, family)

    def index(self, group: str | Sequence[int]) -> Where:
        """What selects `group` on the token axis: an int for the single tokens (cls, distill), else a slice or a list.

        Args:
            group: a group's name, several joined by ``+`` (``cls+distill``), or token indices, which are taken as they are.

        Raises:
            RequestError: the model has no such tokens; ``patches`` joined with another group.
        """
        if not isinstance(group, str):
            return list(group)
        if "+" in group:
            spans = [self.slices[name] if name in self.slices else self._none(name) for name in group.split("+")]
            if any(span.stop is None for span in spans):
                raise RequestError(f"group {group} was given; patches stand alone, groups before them can be joined.")
            return [i for span in spans for i in range(span.start, span.stop)]
        where = self.slices[group] if group in self.slices else self._none(group)
        return where.start if group in ("cls", "distill") else where

    def in_prefix(self, where: Where) -> bool:
        """Whether every token that `where` selects stands before the patches."""
        if isinstance(where, slice):
            return where.stop is not None and where.stop <= self.n_prefix
        return all(0 <= i < self.n_prefix for i in ([where] if isinstance(where, int) else where))

    def _none(self, group: str) -> Never:
        raise RequestError(f"a {self.family} model has no {group} token; its tokens are: {', '.join(self.slices)}.")

    def names(self, n_tokens: int) -> list[str]:
        """Names for a token axis of `n_tokens`: ``CLS``, ``distill``, ``reg 0``, .., then patch numbers."""
        found = []
        for group, where in self.slices.items():
            n = len(range(*where.indices(n_tokens)))
            label = {"cls": "CLS", "registers": "reg", "patches": ""}.get(group, group)
            found += [label] if n == 1 and label else [f"{label} {i}".strip() for i in range(n)]
        return found
