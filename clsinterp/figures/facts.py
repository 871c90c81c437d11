"""What tables and figures say of a run."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Whose numbers a table or a figure shows.

    Attributes:
        model: hub id, folder or ``zoo/NAME``.
        note: a caution that belongs under the model's name, where there is one.
        family: of the model.
        n_layers: its blocks.
        n_classes: classes of the classifier, which output and lens tell apart.
        n_labels: classes of the data, which probes tell apart.
        seed: of the choice of images, their order and the swaps.
        mode: how tokens were replaced, see `clsinterp.interventions`.
        group: whose tokens.
        swaps: draws per batch.
        cls_only: what became of the other read-outs on the CLS-only curves: ``mean``, ``zero``, ``refit``, or ``alone`` where
            each has a head of its own; None where there are no such curves.
        floors: ``use``, what the accuracy would be if the output followed the donor (or were constant, without donors), and
            ``availability``, the share of the most frequent label; None before anything was measured.
        final_norm: whether the lens applies the final norm; None where the family has none.
        data: as it was named.
        head: how labels became classes: ``name``, ``count``, ``map``, ``fit`` or ``text``.
    """

    model: str
    note: str | None = None
    family: str
    n_layers: int
    n_classes: int
    n_labels: int
    seed: int
    mode: str
    final_norm: bool | None
    data: str
    head: str
    group: str = "cls"
    swaps: int = 1
    cls_only: str | None = None
    floors: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values, in the order of the attributes."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Facts":
        """The twin of `to_json`; other keys are passed over.

        Raises:
            KeyError: one is missing.
        """
        return cls(**{f.name: value[f.name] for f in fields(cls)})


def layer_said(layer: float | None, low: float | None, high: float | None) -> str:
    """A layer with its interval, where resampling moves it; None is never.

    Example:
        >>> layer_said(9, 8, 9), layer_said(2.0, 2.0, 2.0), layer_said(5, 5, None)
        ('9 [8, 9]', '2', '5 [5, never]')
    """
    said, *ends = ("never" if x is None else f"{x:.0f}" for x in (layer, low, high))
    return said if {said} == set(ends) else f"{said} [{', '.join(ends)}]"
