"""What a study's figure says of a model besides its tables: a `Setup` has it, and a gallery keeps it to draw again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, Self

import pyarrow as pa

Tables = Mapping[str, pa.Table]  # as in `clsinterp.studies.command.Findings`


class Shown(Protocol):
    """A model as figures name it."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer of it."""

    @property
    def n_classes(self) -> int:
        """Classes of the data, which probes tell apart."""

    @property
    def n_answers(self) -> int:
        """Classes of the classifier."""


@dataclass(frozen=True)
class Recorded:
    """The same, as ``run.json`` has it and a gallery keeps it.

    Attributes:
        model: its name.
        n_layers: how many layers.
        n_classes, n_answers: as in `Shown`.

    Example:
        >>> Recorded("zoo/vit", n_layers=3, n_classes=10, n_answers=10).layers
        (0, 1, 2)
    """

    model: str
    n_layers: int
    n_classes: int
    n_answers: int

    @classmethod
    def of(cls, shown: Shown) -> Self:
        """What is kept of a setup."""
        return cls(shown.name, len(shown.layers), shown.n_classes, shown.n_answers)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """The twin of `facts`; other keys are passed over.

        Raises:
            KeyError: one is missing.
        """
        return cls(**{field.name: facts[field.name] for field in fields(cls)})

    @property
    def name(self) -> str:
        """As figures say it."""
        return self.model

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer of the model."""
        return tuple(range(self.n_layers))

    def facts(self) -> dict[str, Any]:
        """As a file has it."""
        return asdict(self)
