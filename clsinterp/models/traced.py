"""What of a `VisionModel` there is inside a trace: sizes, standard values, its input. All of it travels to a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from clsinterp.data.images import to_rgb
from clsinterp.data.packed import PackedPixels
from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.family import Family, Sizes
from clsinterp.models.outputs import logits_of, with_logits
from clsinterp.models.readouts import MAP, features
from clsinterp.models.tokens import TokenLayout
from clsinterp.models.unstable import Wrapped, output_view

if TYPE_CHECKING:
    from jaxtyping import Float


def _logits(self: Traced, value: Any) -> Tensor:
    if not self.family.heads:
        raise RequestError(
            f"{self.checkpoint.source or 'this ' + self.family.name} has no classifier of its own, so it has no logits. "
            "head = model.fit_head(data) fits one, and model.with_head(head) answers with it; a run fits one with head='fit'."
        )
    return logits_of(value)


def _with_logits(self: Traced, value: Any, new: Tensor) -> Any:
    return with_logits(value, new)


class Traced(Wrapped):
    """The part of a `VisionModel` that the body of a trace can use."""

    checkpoint: Checkpoint
    family: Family
    layout: TokenLayout
    sizes: Sizes

    # -- facts ---------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.sizes.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.sizes.d_model

    @property
    def n_heads(self) -> int:
        """Attention heads per block."""
        return self.sizes.n_heads

    @property
    def heads(self) -> list[nn.Linear]:
        """The classifier's linear maps as torch modules: one, DeiT's two, or none."""
        return [self._module.get_submodule(path) for path in self.family.heads]

    @property
    def lens_norm(self) -> nn.Module | None:
        """The norm the read-out applies before the classifier, as a torch module; None where there is none (CLIP)."""
        path = self.family.lens_norm
        return self._module.get_submodule(path) if path else None

    @property
    def reads_prefix(self) -> bool:
        """Whether the read-outs are tokens before the patches, each as it is: no patch is read after the last block."""
        return all(name in self.layout.slices and name != "patches" for name in self.family.readouts)

    def patch_grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of patches for `pixels` (.., height, width)."""
        height, width = self.sizes.patch
        return pixels.shape[-2] // height, pixels.shape[-1] // width

    # -- values of a trace -----------------------------------------------------

    logits = output_view("logits", "The model's output logits, (batch, n_classes).", _logits, _with_logits)

    @property
    def readout(self) -> Tensor:
        """What enters the classifier, (batch, d_readout): the read-outs of the family's row, concatenated in order."""
        if len(self.family.heads) == 1:
            return self.head.input
        family = self.family
        if MAP in family.readouts:
            return self.pooling.output
        if family.ln_final is None and family.lens_norm is None:
            return features(self, self.blocks[-1].output)
        normed = self.ln_final.output
        # A norm after pooling gives the read-out itself.
        return features(self, normed) if normed.ndim > 2 else normed

    @readout.setter
    def readout(self, new: Tensor) -> None:
        if len(self.family.heads) == 1:
            self.head.input = new
            return
        if not self.family.averages_heads:
            raise RequestError(
                f"{self.checkpoint.source or 'this ' + self.family.name} has no classifier, so writing its read-out changes "
                "nothing; model.with_head(model.fit_head(data)) has one."
            )
        tokens = self.ln_final.output.clone()
        for name, part in zip(self.family.readouts, new.split(self.d_model, dim=-1), strict=True):
            tokens[:, self.layout.index(name)] = part
        self.ln_final.output = tokens

    # -- input -----------------------------------------------------------------

    def pixels(self, images: Any) -> Float[Tensor, "batch channel height width"]:
        """Pixel values for `images`: pictures go through the checkpoint's own processor, tensors pass.

        Pictures are PIL images or numpy arrays of bytes, (height, width, 3) or (height, width), one, several in a list, or a
        batch in one array.

        Raises:
            RequestError: something that is neither a picture nor a pixel tensor, pixels that were not normalised, or no image
                processor.
        """
        if isinstance(images, PackedPixels):
            return self._like(images.unpack())
        if isinstance(images, Tensor):
            if images.ndim not in (3, 4):
                raise RequestError(
                    f"pixels of shape {tuple(images.shape)} were given; (batch, channel, height, width) is expected."
                )
            pixels = images if images.ndim == 4 else images.unsqueeze(0)
            _refuse_bytes(pixels)
            return self._like(pixels)
        if isinstance(images, np.ndarray):
            images = list(images) if images.ndim == 4 else [images]
        listed = list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        if listed and all(isinstance(one, Tensor) for one in listed):
            return torch.cat([self.pixels(one) for one in listed])
        if self.image_processor is None:
            raise RequestError("this model has no image processor; pass image_processor=, or pixel tensors.")
        rgb = [to_rgb(image) for image in listed]
        values = self.image_processor(images=rgb, return_tensors="pt")["pixel_values"]
        if reason := self.family.misfit(
            (values.shape[-2], values.shape[-1]), self.sizes
        ):  # of a processor that resizes nothing
            raise RequestError(f"the image processor makes pictures of {reason}")
        return self._like(values)

    def _like(self, values: Tensor) -> Tensor:
        """`values` with the device and dtype of the model's weights."""
        return values.to(next(self._module.parameters()))

    def n_images(self, *inputs: Any) -> int:
        """How many images `inputs` hold: 1 for a single one, 0 for none."""
        if not inputs:
            return 0
        images = inputs[0]
        if isinstance(images, (Tensor, np.ndarray)):
            return len(images) if images.ndim == 4 else 1
        return len(images) if isinstance(images, (Sequence, PackedPixels)) else 1

    def joined(self, inputs: list[Any]) -> Tensor:
        """The pixels of several invokes, one batch."""
        return torch.cat([self.pixels(images) for images in inputs])


BYTES = 16  # a normalised pixel is far below, a picture in bytes somewhere above


def _refuse_bytes(pixels: Tensor) -> None:
    """Refuse what looks like bytes. Only the first image is looked at."""
    said = None
    if not pixels.is_floating_point():
        said = f"pixels of type {pixels.dtype} were given"
    elif len(pixels) and pixels.device.type == "cpu" and float(pixels[0].min()) >= 0 and float(pixels[0].max()) > BYTES:
        said = f"pixels up to {float(pixels[0].max()):g} were given, which look like bytes that nobody normalised"
    if said is not None:
        raise RequestError(
            f"{said}; give PIL images or uint8 arrays (height, width, 3), which the checkpoint's own processor prepares, or "
            "pixels as it makes them."
        )
