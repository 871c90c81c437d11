"""What is done to the forward that a view shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from clsinterp import interventions
from clsinterp.errors import RequestError
from clsinterp.models.layers import EMBEDDINGS, check_layers

if TYPE_CHECKING:
    from clsinterp.vision_model import VisionModel

ReplacementName = Literal["swap", "mean", "zero", "noise"]
REPLACEMENTS: tuple[ReplacementName, ...] = ("swap", "mean", "zero", "noise")


@dataclass(frozen=True)
class Intervention:
    """What is done to the forward that a view shows.

    Attributes:
        replace: what takes the place of the CLS token after block `layer`: that of the first reference image
            (``swap``), the reference images' mean, zeros, or noise with their mean and standard deviation; None leaves
            it alone.
        layer: where; -1 is before block 0.
        reference: images, pixel tensors, or CLS tokens of that layer (n, d_model).
        seed: of the noise.
        cls_only: turn off every read-out but the CLS token's in the output.
    """

    replace: ReplacementName | None = None
    layer: int = 0
    reference: Any = None
    seed: int = 0
    cls_only: bool = False

    def check(self, model: VisionModel) -> None:
        """Refuse what cannot be done to `model`.

        Raises:
            RequestError: with the reason.
        """
        if self.replace is not None:
            if self.replace not in REPLACEMENTS:
                raise RequestError(
                    f"replacement {self.replace!r} was given; one of {', '.join(REPLACEMENTS)} is expected."
                )
            if reason := no_replacing(model):
                raise RequestError(reason)
            check_layers([self.layer], model.n_layers)
            if self.replace != "zero" and self.reference is None:
                raise RequestError(f"{self.replace} needs reference images to take tokens from; give reference=.")
        if self.cls_only and (reason := no_cls_only(model)):
            raise RequestError(reason)

    def describe(self) -> str:
        """What is done, in words."""
        how = {"swap": "that of another image", "mean": "the mean", "zero": "zeros", "noise": "noise"}
        where = "before block 0" if self.layer == EMBEDDINGS else f"after block {self.layer}"
        done = [f"CLS token replaced by {how[self.replace]} {where}"] if self.replace else []
        return ", ".join(done + (["other read-outs off (at zero)"] if self.cls_only else [])) or "nothing done"

    def maker(self) -> interventions.TokenEdit:
        """What makes the replacement token from the reference tokens (for ``zero``: from the image's own)."""
        if self.replace == "noise":
            return interventions.noise(self.seed)
        return {"mean": interventions.mean, "zero": interventions.zero}.get(self.replace or "", _first)


def _first(reference: Tensor) -> Tensor:
    return reference[:1]


def no_replacing(model: VisionModel) -> str | None:
    """Why the CLS token of `model` cannot be replaced, or None if it can."""
    if model.family.has_cls:
        return None
    return f"A {model.family.name} model has no CLS token that could be replaced."


def no_cls_only(model: VisionModel) -> str | None:
    """Why no read-out of `model` can be turned off, or None if one can."""
    family = model.family
    if family.other_readouts:
        return None
    if "cls" in family.readouts:
        return f"A {family.name} model's classifier reads the CLS token alone: there is nothing to turn off."
    return (
        f"A {family.name} model's classifier does not read the CLS token, so turning the rest off would leave nothing."
    )
