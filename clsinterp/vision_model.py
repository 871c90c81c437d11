"""VisionModel: any supported vision transformer as one object, with standard names and token views in nnsight traces."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import nnsight
import torch
from torch import nn

from clsinterp.data.images import at_size
from clsinterp.errors import RequestError
from clsinterp.hooks.hooked import Hooked
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.described import describe
from clsinterp.models.families import FAMILIES
from clsinterp.models.family import Family, Sizes
from clsinterp.models.fitted_head import FittedHead
from clsinterp.models.loading import adopt, load_checkpoint
from clsinterp.models.module_tree import renames, verify
from clsinterp.models.outputs import without_logits
from clsinterp.models.placement import as_dtype, pick_device
from clsinterp.models.processor_check import refuse_processor
from clsinterp.models.skeleton import load_skeleton
from clsinterp.models.token_views import Tokens
from clsinterp.models.tokens import TokenLayout
from clsinterp.models.unstable import copied_above
from clsinterp.remote.server import Server


class VisionModel(Hooked):
    """A vision transformer whose inside is named and read the same way for every family.

    Inside ``with model.trace(images):`` these read, assign and edit in place:

    - ``model.blocks[i]`` with token views ``.cls .distill .registers .patches .resid`` of its output
      (the residual stream after block i), and submodules ``.attn .mlp .ln1 .ln2``;
    - ``model.embed`` with the same views, ``model.ln_final``, ``model.head``;
    - ``model.readout`` (what enters the classifier) and ``model.logits``.

    ``images`` are PIL images, lists of them, or pixel tensors (batch, channel, height, width). Several
    ``tracer.invoke(images)`` blocks in one trace run as one batch.

    Args:
        source: hub id, folder, ``zoo/NAME``, or a loaded module.
        image_processor: replaces the checkpoint's own; only needed for a module without one.
        image_size: side in pixels of the square that images are resized and cropped to, for families that take any size.
        classifier: a run folder, a file that `FittedHead.save` wrote, or ``zoo/dinov2-small``, whose fitted head
            becomes the model's classifier, for a checkpoint that has none or another; images then have the size it was fitted
            at unless `image_size` says otherwise.
        classes: class names that become the model's classifier through its text tower (CLIP, SigLIP, open_clip): the model is
            then read as its own image embedding is, see `docs/clip.md`.
        templates: sentences with ``{}`` for a class's name; default `clsinterp.models.prompts.TEMPLATES`.
        tokenizer: the text tower's, for a loaded module; default that of the checkpoint it came from.
        config: config fields to change before the model is built, such as ``{"use_mean_pooling": False}``.
        dtype: floating-point type; "auto" is float32, in which results are exact and repeatable.
        device: "auto" takes CUDA, then MPS, then the CPU.
        allow_pickle: accept pickled weights, which can run code when loaded.
        remote: True, the URL of an NDIF server, or a `clsinterp.remote.server.Server`: no weights are loaded, and every
            trace runs on the server. The API key comes from NDIF_API_KEY or nnsight's configuration.
        **kwargs: passed to ``from_pretrained`` (``attn_implementation="eager"``, ``revision=``, and ``device_map="auto"``
            for a model larger than one GPU, which needs accelerate).

    Raises:
        RequestError: unknown family, incomplete checkpoint, a config or an image processor that does not fit the weights or
            each other, or a module tree that does not match the family table.

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

    def __init__(
        self,
        source: str | nn.Module,
        *,
        image_processor: Any = None,
        image_size: int | None = None,
        classifier: str | Path | None = None,
        classes: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        tokenizer: Any = None,
        config: dict[str, Any] | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        allow_pickle: bool = False,
        remote: bool | str | Server = False,
        **kwargs: Any,
    ) -> None:
        self.server = Server.of(remote)
        _refuse_mixed(classifier, classes, templates)
        if self.server is not None:
            fixed = {"classifier": classifier, "classes": classes, "config": config, "dtype": dtype, "device": device}
            checkpoint = _on_server(source, fixed, **kwargs)
        elif isinstance(source, nn.Module):
            checkpoint = adopt(source, classes, templates, tokenizer)
        else:
            checkpoint = load_checkpoint(
                source,
                classes=classes,
                templates=templates,
                config_overrides=config,
                dtype=as_dtype(dtype),
                allow_pickle=allow_pickle,
                **kwargs,
            )
            if "device_map" not in kwargs:  # else accelerate has placed the weights
                checkpoint.module.to(pick_device(device))
        if classifier is not None:
            fitted = FittedHead.read(classifier, checkpoint.source)
            checkpoint = fitted.put_into(checkpoint)
            image_size = image_size or fitted.image_size
        self._take(checkpoint, image_processor or checkpoint.processor, image_size)
        self.revision = kwargs.get("revision")  # as asked: a server knows the model by it

    def _take(self, checkpoint: Checkpoint, processor: Any, image_size: int | None) -> None:
        """Become the model of `checkpoint`."""
        family, module = checkpoint.family, checkpoint.module
        self.checkpoint = checkpoint
        self.family = family
        self.sizes = checkpoint.sizes
        self.layout = TokenLayout.of(family.name, self.sizes.prefix)
        verify(module, family, self.sizes)
        self.image_size = image_size
        if image_size is not None:
            _refuse_size(family, self.sizes, image_size)
            processor = at_size(processor, image_size)
        refuse_processor(processor, family, self.sizes, checkpoint.source)
        classifies = bool(family.heads) or family.hf_class.endswith("ForImageClassification")
        super().__init__(
            module,
            task="image-classification" if classifies else "image-feature-extraction",
            image_processor=processor,
            rename=renames(family),
            envoys={
                f"{family.blocks}.*": Tokens,
                family.embed: Tokens,
                **({family.ln_pre: Tokens} if family.ln_pre else {}),
            },
        )

    # -- the classifier ------------------------------------------------------

    @property
    def n_classes(self) -> int | None:
        """Number of classes of the model's own classifier; None without one."""
        return self.heads[0].out_features if self.checkpoint.head_is_own else None

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classifier's classes, in order; None without an own classifier."""
        return self.checkpoint.class_names

    def fit_head(self, data: Any, *, batch_size: int = 64, **options: Any) -> FittedHead:
        """A ridge classifier on the read-out of labelled images, which `with_head` puts into a model.

        Args:
            data: what `clsinterp.data.sources.open_data` takes (the train split is used), a `Split`, or (images, labels).
            batch_size: images in one forward.
            **options: of `clsinterp.data.sources.open_data`, such as ``train_per_class=100``.

        Raises:
            RequestError: data that cannot be had, or fewer than 2 images.

        Example:
            >>> from clsinterp import VisionModel
            >>> import torch
            >>> model = VisionModel("zoo/vit")
            >>> head = model.fit_head((torch.randn(8, 3, 28, 28), ["cat", "dog"] * 4))
            >>> model.with_head(head).class_names
            ['cat', 'dog']
        """
        from clsinterp.probing.fitting import fit

        return fit(self, data, batch_size=batch_size, image_size=self.image_size, **options)

    def with_head(self, head: FittedHead | str | Path) -> Self:
        """A model that answers with `head`, and shares all other weights with this one, which stays as it is.

        Args:
            head: from `fit_head`, or the path of a run folder or of a saved head.

        Raises:
            RequestError: a head of other read-outs, or a model on a server.
        """
        if self.server is not None:
            raise RequestError("a head cannot be put into a model on a server; load the model without remote=.")
        if not isinstance(head, FittedHead):
            head = FittedHead.read(head, self.checkpoint.source)
        module = copied_above(self.checkpoint.module, self.family.heads)
        made = type(self).__new__(type(self))
        made.server = None
        made._take(head.put_into(replace(self.checkpoint, module=module)), self.image_processor, None)
        made.revision, made.image_size = self.revision, self.image_size
        return made

    def __repr__(self) -> str:
        """One line: what the checkpoint was taken for."""
        return describe(self.checkpoint)

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        """The output of the library's own forward for `images`, with the hooks of a surrounding `hooks` context, if any."""
        if self.server is None:
            return self.trace(self.pixels(images), trace=False, **kwargs)
        with self.trace(images, **kwargs):
            with torch.no_grad():  # in the body, which is all that travels; gradients do not come down
                output = self.output
            nnsight.save(output)
        return output if self.family.heads else without_logits(output)  # which the server drew at random


def _on_server(source: Any, fixed: dict[str, Any], **options: Any) -> Checkpoint:
    """The skeleton of a checkpoint that a server has; what only the server decides is refused."""
    if isinstance(source, nn.Module):
        raise RequestError(
            f"a loaded {type(source).__name__} was given with remote=; its traces would run here. Give the hub id, or the "
            "folder, by which the server knows the model."
        )
    if given := [name for name, value in fixed.items() if value not in (None, {}, "auto")]:
        raise RequestError(
            f"{', '.join(given)} was given, but the server has loaded the model already, in its own way."
        )
    return load_skeleton(source, **options)


def _refuse_mixed(
    classifier: str | Path | None, classes: Sequence[str] | None, templates: Sequence[str] | None
) -> None:
    if classifier is not None and classes is not None:
        raise RequestError("classifier and classes were both given; a model has one classifier.")
    if templates is not None and classes is None:
        raise RequestError("templates were given without classes; they are sentences for class names.")


def _refuse_size(family: Family, sizes: Sizes, side: int) -> None:
    if not family.any_size and (side, side) != sizes.image:
        able = ", ".join(row.name for row in FAMILIES if row.any_size)
        raise RequestError(
            f"image size {side} was given, but this {family.name} checkpoint has positions for {sizes.image[0]} pixels "
            f"only; leave the size out (families that take any size: {able})."
        )
    if side < max(sizes.patch) or any(side % patch for patch in sizes.patch):
        raise RequestError(f"image size {side} was given; a multiple of the patch size {sizes.patch[0]} is expected.")
