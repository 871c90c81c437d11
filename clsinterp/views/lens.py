"""The logit lens on one image: what the classifier reads at every token of every layer, intact or under an intervention.

Everything a view holds is taken in one trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.probing.head import Head
from clsinterp.probing.lens import lens_readout, own_head
from clsinterp.views.intervention import Intervention
from clsinterp.views.reading import Reading
from clsinterp.views.trace import lens_trace

if TYPE_CHECKING:
    import pyarrow as pa

    from clsinterp.vision_model import VisionModel

ENTERING = "blocks.0.hook_resid_pre"


class LensView(Reading):
    """A `Reading` that draws itself and gives its numbers as a table."""

    def table(self) -> pa.Table:
        """The lens as a tidy table: layer, token, group, class, logit, probability, rank."""
        from clsinterp.views.table import lens_table

        return lens_table(self)

    def figure(self, quantity: str = "probability", **options: Any) -> Any:
        """The view as a plotly figure with a layer slider; see `clsinterp.views.figure.lens_figure`."""
        from clsinterp.views.figure import lens_figure

        return lens_figure([self], quantity, **options)

    def maps(self, quantity: str = "probability", **options: Any) -> Any:
        """Every layer at once as small maps; see `clsinterp.views.grid.grid_figure`."""
        from clsinterp.views.grid import grid_figure

        return grid_figure([self], quantity, **options)

    def widget(self, quantity: str = "probability", **options: Any) -> Any:
        """The figure as a ``FigureWidget`` for notebooks; see `clsinterp.views.figure.lens_widget`."""
        from clsinterp.views.figure import lens_widget

        return lens_widget(self, quantity, **options)


@torch.no_grad()
def lens(
    model: VisionModel, image: Any, intervention: Intervention | None = None, *, head: Head | None = None
) -> LensView:
    """Look at one image through the logit lens (with the final norm; Vilas et al. 2023): every layer, every token.

    The trace of a model on a server runs there, and what comes down is the view's logits.

    Args:
        model: the model.
        image: a PIL image, or pixels (channel, height, width).
        intervention: what to do to the forward; None leaves it intact.
        head: the classifier to read with; default the model's own.

    Raises:
        RequestError: more than one image, no classifier, or an intervention this family does not have.
        RunError: NaN or infinity in the residual stream.
    """
    head = head or own_head(model)
    edit = intervention or Intervention()
    edit.check(model)
    pixels = model.pixels(image)
    if len(pixels) != 1:
        raise RequestError(f"{len(pixels)} images were given; a lens view is of one image.")
    reference, batch = _reference(model, edit, pixels)
    here = None
    if edit.replace is not None:
        here = ENTERING if edit.layer == EMBEDDINGS else f"blocks.{edit.layer}.hook_resid_post"
    names = _names(model, edit, model.family.has_cls)
    taken = lens_trace(model, batch, names, here, edit.maker(), reference, head, edit.cls_only)
    logits, output, attention, similarity = taken
    n_tokens = logits.shape[1]
    groups = tuple(g for g, where in model.layout.slices.items() for _ in range(*where.indices(n_tokens)))
    return LensView(
        logits,
        output,
        attention,
        similarity,
        tuple(_names_of(model, n_tokens)),
        groups,
        model.patch_grid(pixels),
        tuple(model.class_names or (str(i) for i in range(head.n_classes))),
        seen(model, pixels[0]),
        model.checkpoint.source or type(model._module).__name__,
        model.family.name,
        {group: lens_readout(model.family, group) for group in dict.fromkeys(groups)},
        intervention,
    )


def _names(model: VisionModel, edit: Intervention, attends: bool) -> list[str]:
    what = ["hook_resid_post", *(["attn.hook_pattern"] if attends else [])]
    names = [f"blocks.{i}.{name}" for i in range(model.n_layers) for name in what]
    if edit.replace is not None and edit.layer == EMBEDDINGS:
        names.append(ENTERING)
    return [*names, "hook_readout", *(["hook_logits"] if model.family.heads else [])]


def _reference(model: VisionModel, edit: Intervention, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
    """Reference tokens if they are known, and the batch: the image, then the reference images whose tokens are not."""
    given = edit.reference
    if edit.replace is None or given is None:
        # Zeros are made like the image's own token.
        return (torch.zeros(1, model.d_model) if edit.replace == "zero" else None), pixels
    if isinstance(given, Tensor) and given.ndim == 2:
        return given, pixels
    others = model.pixels(list(given) if isinstance(given, Sequence) else given)
    if others.shape[1:] != pixels.shape[1:]:
        raise RequestError(
            f"reference images of {tuple(others.shape[1:])} pixels do not fit an image of {tuple(pixels.shape[1:])}."
        )
    return None, torch.cat([pixels, others])


def _names_of(model: VisionModel, n_tokens: int) -> list[str]:
    """``CLS``, ``distill``, ``reg 0``, .., ``patch 0``, .."""
    return [f"patch {name}" if name.isdigit() else name for name in model.layout.names(n_tokens)]


def seen(model: VisionModel, pixels: Float[Tensor, "channel height width"]) -> Image.Image:
    """The picture behind `pixels`: the processor's normalisation undone; without a processor, scaled to its range."""
    values = pixels.detach().float().cpu()
    processor = model.image_processor
    mean, std = (getattr(processor, f"image_{name}", None) for name in ("mean", "std"))
    if mean is not None and std is not None and getattr(processor, "do_normalize", True):
        values = values * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    elif values.min() < 0 or values.max() > 1:
        values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    array = (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
