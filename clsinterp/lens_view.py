"""The logit lens on one image: what the classifier reads at every token of every layer, intact or under an intervention.

Everything a view holds is taken in one trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from clsinterp import interventions
from clsinterp.attention import patch_grid
from clsinterp.errors import RequestError
from clsinterp.fork import EMBEDDINGS, check_layers
from clsinterp.heatmaps import token_names
from clsinterp.lens_trace import MakeToken, lens_trace
from clsinterp.logit_lens import own_head
from clsinterp.readout import Head

if TYPE_CHECKING:
    import pyarrow as pa

    from clsinterp.model import VisionModel

Replacement = Literal["swap", "mean", "zero", "noise"]
REPLACEMENTS: tuple[Replacement, ...] = ("swap", "mean", "zero", "noise")
ENTERING = "blocks.0.hook_resid_pre"


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

    replace: Replacement | None = None
    layer: int = 0
    reference: Any = None
    seed: int = 0
    cls_only: bool = False

    def check(self, model: "VisionModel") -> None:
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
        return ", ".join(done + (["other read-outs off"] if self.cls_only else [])) or "nothing done"

    def maker(self) -> MakeToken:
        """What makes the replacement token from the reference tokens (for ``zero``: from the image's own)."""
        if self.replace == "noise":
            return interventions.noise(self.seed)
        return {"mean": interventions.mean, "zero": interventions.zero}.get(self.replace or "", _first)


def _first(reference: Tensor) -> Tensor:
    return reference[:1]


def no_replacing(model: "VisionModel") -> str | None:
    """Why the CLS token of `model` cannot be replaced, or None if it can."""
    if model.family.has_cls:
        return None
    return f"A {model.family.name} model has no CLS token that could be replaced."


def no_cls_only(model: "VisionModel") -> str | None:
    """Why no read-out of `model` can be turned off, or None if one can."""
    family = model.family
    if family.other_readouts:
        return None
    if "cls" in family.readouts:
        return f"A {family.name} model's classifier reads the CLS token alone: there is nothing to turn off."
    return (
        f"A {family.name} model's classifier does not read the CLS token, so turning the rest off would leave nothing."
    )


@dataclass(frozen=True)
class LensView:
    """What the classifier reads in one image.

    Attributes:
        logits: what the lens gives, layer by layer, token by token (prefix tokens first, then patches row by row).
        output: the model's own logits; with ``cls_only``, those of the CLS read-out alone.
        attention: how much the CLS token attends to each token; None without a CLS token.
        tokens, groups: each token's name, and the group it belongs to.
        grid: rows and columns of patches.
        class_names: of the classifier.
        image: as the model sees it: resized and cropped by its processor.
        model, family: what was looked into.
        intervention: what was done; None for the intact forward.
    """

    logits: Float[Tensor, "layer token classes"]
    output: Float[Tensor, " classes"]
    attention: Float[Tensor, "layer head token"] | None
    tokens: tuple[str, ...]
    groups: tuple[str, ...]
    grid: tuple[int, int]
    class_names: tuple[str, ...]
    image: Image.Image
    model: str
    family: str
    intervention: Intervention | None = None

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.logits)

    @property
    def n_prefix(self) -> int:
        """Tokens before the first patch."""
        return len(self.tokens) - self.grid[0] * self.grid[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, for caches."""
        return sum(t.nbytes for t in (self.logits, self.output, self.attention) if t is not None)

    @property
    def probabilities(self) -> Float[Tensor, "layer token classes"]:
        """Softmax of the lens logits."""
        return self.logits.softmax(-1)

    def top(self, k: int = 5) -> tuple[Float[Tensor, "layer token k"], Int[Tensor, "layer token k"]]:
        """Probabilities and classes of the `k` most probable classes of every token."""
        found = self.probabilities.topk(min(k, self.logits.shape[-1]), dim=-1)
        return found.values, found.indices

    def trajectory(self) -> Float[Tensor, "layer classes"]:
        """Probabilities read from the CLS token layer by layer; without one, from the patches on average."""
        if "cls" in self.groups:
            return self.logits[:, self.groups.index("cls")].softmax(-1)
        return self.probabilities[:, self.n_prefix :].mean(1)

    def table(self) -> "pa.Table":
        """The lens as a tidy table: layer, token, group, class, logit, probability, rank."""
        from clsinterp.lens_tables import lens_table

        return lens_table(self)

    def figure(self, quantity: str = "probability", **options: Any) -> Any:
        """The view as a plotly figure with a layer slider; see `clsinterp.lens_figures.lens_figure`."""
        from clsinterp.lens_figures import lens_figure

        return lens_figure([self], quantity, **options)

    def widget(self, quantity: str = "probability", **options: Any) -> Any:
        """The figure as a ``FigureWidget`` for notebooks; see `clsinterp.lens_figures.lens_widget`."""
        from clsinterp.lens_figures import lens_widget

        return lens_widget(self, quantity, **options)


@torch.no_grad()
def lens(
    model: "VisionModel", image: Any, intervention: Intervention | None = None, *, head: Head | None = None
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
    logits, output, attention = lens_trace(model, batch, names, here, edit.maker(), reference, head, edit.cls_only)
    n_tokens = logits.shape[1]
    return LensView(
        logits,
        output,
        attention,
        tuple(_names_of(model, n_tokens)),
        tuple(g for g, where in model.layout.slices.items() for _ in range(*where.indices(n_tokens))),
        patch_grid(model, pixels),
        tuple(model.class_names or (str(i) for i in range(head.n_classes))),
        seen(model, pixels[0]),
        model.checkpoint.source or type(model._module).__name__,
        model.family.name,
        intervention,
    )


def _names(model: "VisionModel", edit: Intervention, attends: bool) -> list[str]:
    what = ["hook_resid_post", *(["attn.hook_pattern"] if attends else [])]
    names = [f"blocks.{i}.{name}" for i in range(model.n_layers) for name in what]
    if edit.replace is not None and edit.layer == EMBEDDINGS:
        names.append(ENTERING)
    return [*names, "hook_readout", *(["hook_logits"] if model.family.heads else [])]


def _reference(model: "VisionModel", edit: Intervention, pixels: Tensor) -> tuple[Tensor | None, Tensor]:
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


def _names_of(model: "VisionModel", n_tokens: int) -> list[str]:
    """``CLS``, ``distill``, ``reg 0``, .., ``patch 0``, .."""
    return [f"patch {name}" if name.isdigit() else name for name in token_names(model.layout, n_tokens)]


def seen(model: "VisionModel", pixels: Float[Tensor, "channel height width"]) -> Image.Image:
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
