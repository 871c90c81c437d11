"""VisionModel: any supported vision transformer as one object, with standard names and token views in nnsight traces."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Mediator
from nnsight.modeling.transformers import TransformersModel
from torch import Tensor, nn

from clsinterp.checkpoint import Checkpoint, load_checkpoint, load_processor
from clsinterp.errors import RequestError
from clsinterp.families import FAMILIES, Family, find_family
from clsinterp.hooks import Hooked
from clsinterp.images import at_size, to_rgb
from clsinterp.module_tree import renames, verify
from clsinterp.placement import as_dtype, pick_device
from clsinterp.token_views import Tokens
from clsinterp.tokens import TokenLayout


class VisionModel(Hooked, TransformersModel):
    """A vision transformer whose inside is named and read the same way for every family.

    Inside ``with model.trace(images):`` these read, assign and edit in place:

    - ``model.blocks[i]`` with token views ``.cls .distill .registers .patches .resid`` of its output
      (the residual stream after block i), and submodules ``.attn .mlp .ln1 .ln2``;
    - ``model.embed`` with the same views, ``model.ln_final``, ``model.head``;
    - ``model.readout`` (what enters the classifier) and ``model.logits``.

    ``images`` are PIL images, lists of them, or pixel tensors (batch, channel, height, width). Several
    ``tracer.invoke(images)`` blocks in one trace run as one batch.

    Args:
        source: hub id, folder, ``zoo/NAME``, or a loaded Hugging Face module.
        image_processor: replaces the checkpoint's own; only needed for a module without one.
        image_size: side in pixels of the square that images are resized and cropped to, for families that take any size.
        config: config fields to change before the model is built, such as ``{"use_mean_pooling": False}``.
        dtype: floating-point type; "auto" is float32, in which results are exact and repeatable.
        device: "auto" takes CUDA, then MPS, then the CPU.
        allow_pickle: accept pickled weights, which can run code when loaded.
        **kwargs: passed to ``from_pretrained`` (``attn_implementation="eager"``, ``revision=``, and ``device_map="auto"``
            for a model larger than one GPU, which needs accelerate).

    Raises:
        RequestError: unknown family, incomplete checkpoint, or a module tree that does not match the family table.

    Example:
        >>> from clsinterp import VisionModel
        >>> from clsinterp.interventions import derange
        >>> import torch
        >>> model = VisionModel("zoo/vit")
        >>> images = torch.zeros(4, 3, 28, 28)
        >>> with model.trace(images):
        ...     block = model.blocks[5]
        ...     block.cls = block.cls[derange(len(images), seed=0)]
        ...     logits = model.logits.save()
        >>> logits.shape
        torch.Size([4, 10])
    """

    family: Family
    layout: TokenLayout
    vision_config: Any

    def __init__(
        self,
        source: str | nn.Module,
        *,
        image_processor: Any = None,
        image_size: int | None = None,
        config: dict[str, Any] | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(source, nn.Module):
            checkpoint = _adopt(source)
        else:
            checkpoint = load_checkpoint(
                source, config_overrides=config, dtype=as_dtype(dtype), allow_pickle=allow_pickle, **kwargs
            )
            if "device_map" not in kwargs:  # else accelerate has placed the weights
                checkpoint.module.to(pick_device(device))
        family, module = checkpoint.family, checkpoint.module
        hf_config: Any = module.config
        vision = hf_config.vision_config if family.text_and_vision else hf_config
        self.checkpoint = checkpoint
        self.family = family
        self.layout = TokenLayout.of(family, vision)
        self.vision_config = vision
        verify(module, family, vision)
        processor = image_processor or checkpoint.processor
        if image_size is not None:
            _refuse_size(family, vision, image_size)
            processor = at_size(processor, image_size)
        super().__init__(
            module,
            task="image-classification" if family.heads else "image-feature-extraction",
            image_processor=processor,
            rename=renames(family),
            envoys={
                f"{family.blocks}.*": Tokens,
                family.embed: Tokens,
                **({family.ln_pre: Tokens} if family.ln_pre else {}),
            },
        )

    # -- facts ---------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.vision_config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.vision_config.hidden_size

    @property
    def n_heads(self) -> int:
        """Attention heads per block."""
        return self.vision_config.num_attention_heads

    @property
    def n_classes(self) -> int | None:
        """Number of classes of the model's own classifier; None without one."""
        return self.heads[0].out_features if self.checkpoint.head_is_own else None

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classifier's classes, in order; None without an own classifier."""
        if not self.checkpoint.head_is_own:
            return None
        names = self._module.config.id2label
        return [names[i] for i in range(len(names))]

    @property
    def heads(self) -> list[nn.Linear]:
        """The classifier's linear maps as torch modules: one, DeiT's two, or none."""
        return [self._module.get_submodule(path) for path in self.family.heads]

    @property
    def lens_norm(self) -> nn.LayerNorm | None:
        """The norm the read-out applies before the classifier, as a torch module; None where there is none (CLIP)."""
        path = self.family.lens_norm
        return self._module.get_submodule(path) if path else None

    # -- values of a trace -----------------------------------------------------

    @eproperty(key="output")
    def logits(self, value: Any) -> Tensor:
        """The model's output logits, (batch, n_classes)."""
        if not self.family.heads:
            raise RequestError(f"a {self.family.name} checkpoint has no classifier; fit a head with --head fit.")
        return value.logits

    @logits.transform
    def logits(self, edited: Tensor, raw: Any) -> Any:  # noqa: D102
        return raw  # a view: in-place edits are in it already

    @logits.postprocess
    def logits(self, new: Tensor) -> Any:  # noqa: D102
        value = Mediator.value(f"{self.path}.output")
        return type(value)(**{**value, "logits": new})

    @property
    def readout(self) -> Tensor:
        """What enters the classifier, (batch, d_readout): the read-outs of the family's row, concatenated in order."""
        if len(self.family.heads) == 1:
            return self.head.input
        tokens = self.ln_final.output
        return torch.cat([self._pool(tokens, name) for name in self.family.readouts], dim=-1)

    @readout.setter
    def readout(self, new: Tensor) -> None:
        if len(self.family.heads) == 1:
            self.head.input = new
            return
        if not self.family.averages_heads:
            raise RequestError(
                f"a {self.family.name} checkpoint has no classifier, so writing its read-out changes nothing."
            )
        tokens = self.ln_final.output.clone()
        for name, part in zip(self.family.readouts, new.split(self.d_model, dim=-1), strict=True):
            tokens[:, self.layout.index(name)] = part
        self.ln_final.output = tokens

    def _pool(self, tokens: Tensor, readout: str) -> Tensor:
        if readout == "patch_mean":
            return tokens[:, self.layout.index("patches")].mean(dim=1)
        return tokens[:, self.layout.index(readout)]

    # -- input -----------------------------------------------------------------

    def pixels(self, images: Any) -> Float[Tensor, "batch channel height width"]:
        """Pixel values for `images`: PIL images go through the checkpoint's own processor, tensors pass.

        Raises:
            RequestError: something that is neither an image nor a pixel tensor, or no image processor.
        """
        if isinstance(images, Tensor):
            if images.ndim not in (3, 4):
                raise RequestError(
                    f"pixels of shape {tuple(images.shape)} were given; (batch, channel, height, width) is expected."
                )
            pixels = images if images.ndim == 4 else images.unsqueeze(0)
            return pixels.to(next(self._module.parameters()))
        listed = list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        if listed and all(isinstance(one, Tensor) for one in listed):
            return torch.cat([self.pixels(one) for one in listed])
        if self.image_processor is None:
            raise RequestError("this model has no image processor; pass image_processor=, or pixel tensors.")
        rgb = [to_rgb(image) for image in listed]
        values = self.image_processor(images=rgb, return_tensors="pt")["pixel_values"]
        return values.to(next(self._module.parameters()))

    def _batch_size(self, *inputs: Any, **kwargs: Any) -> int:
        if not inputs:
            return 0
        images = inputs[0]
        if isinstance(images, Tensor):
            return len(images) if images.ndim == 4 else 1
        return len(images) if isinstance(images, Sequence) else 1

    def _batch(self, invokes: list[tuple], fn: Any) -> tuple:
        if not invokes:
            return (), {}
        pixels = torch.cat([self.pixels(inputs[0]) for inputs, _ in invokes])
        return (pixels,), {key: value for _, kwargs in invokes for key, value in kwargs.items()}

    def _wrap(self, module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        # The pipeline would only guess an image processor (and fail without torchvision); pixels() does its work.
        return module

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        """The Hugging Face output for `images`, with the hooks of a surrounding `hooks` context, if any."""
        return self.trace(self.pixels(images), trace=False, **kwargs)


def _refuse_size(family: Family, config: Any, side: int) -> None:
    if not family.any_size and side != config.image_size:
        able = ", ".join(row.name for row in FAMILIES if row.any_size)
        raise RequestError(
            f"image size {side} was given, but this {family.name} checkpoint has positions for {config.image_size} pixels "
            f"only; leave the size out (families that take any size: {able})."
        )
    if side < config.patch_size or side % config.patch_size:
        raise RequestError(
            f"image size {side} was given; a multiple of the patch size {config.patch_size} is expected."
        )


def _adopt(module: nn.Module) -> Checkpoint:
    """A loaded Hugging Face module as a `Checkpoint`; its classifier counts as its own."""
    config = getattr(module, "config", None)
    if config is None:
        raise RequestError(f"{type(module).__name__} has no Hugging Face config; give a transformers vision model.")
    family = find_family([type(module).__name__], config)
    if type(module).__name__ != family.hf_class:
        raise RequestError(f"{type(module).__name__} has no classifier; load it as {family.hf_class}.")
    name = getattr(config, "name_or_path", "") or ""
    return Checkpoint(module.eval(), family, load_processor(name) if name else None, bool(family.heads), name, None)
