"""A classifier fitted on what a model reads out of labelled images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nnsight
import torch
from torch import Tensor

from clsinterp.data.names import in_order
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.models.fitted_head import FittedHead
from clsinterp.probing.streams import fit_head

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


def fit(
    model: "Traced", data: Any, *, batch_size: int = 64, image_size: int | None = None, **options: Any
) -> FittedHead:
    """A ridge classifier on the read-outs of labelled images, by cross-validation as in a run.

    Args:
        model: the model, whose classifier, if it has one, plays no part.
        data: what `clsinterp.data.sources.open_data` takes (its train split is used), a `Split`, or (images, labels): images
            as for ``model.pixels``, labels as names or numbers.
        batch_size: images in one forward.
        image_size: what the head says of the size it was fitted at.
        **options: of `clsinterp.data.sources.open_data`.

    Raises:
        RequestError: data that cannot be had, as many labels as images not given, or fewer than 2 images.
    """
    if isinstance(data, (str, Path)):
        from clsinterp.data.sources import open_data  # brings datasets in

        data, _ = open_data(str(data), **options)
    elif options:
        raise RequestError(f"{', '.join(options)} was given; that is for data that is opened by name.")
    if isinstance(data, Split):
        names, labels, stream = data.class_names, data.labels, _of_split(model, data, batch_size)
    else:
        try:
            images, given = data
            given = [str(int(label)) if isinstance(label, Tensor) else str(label) for label in given]
        except (TypeError, ValueError) as error:
            raise RequestError("data to open, a Split, or (images, labels) is expected.") from error
        if len(images) != len(given):
            raise RequestError(
                f"{len(images)} images and {len(given)} labels were given; a label for each is expected."
            )
        names = in_order(set(given))
        labels = [names.index(label) for label in given]
        stream = (model.pixels(images[i : i + batch_size]) for i in range(0, len(images), batch_size))
    head = fit_head(_read(model, stream, labels), model.family, len(names))
    readouts = model.family.readouts
    return FittedHead(head.weights, head.biases, list(names), readouts, model.checkpoint.source, image_size)


def _of_split(model: "Traced", split: Split, size: int) -> Iterator[Tensor]:
    from clsinterp.data.batches import batches

    for pixels in batches(split, model.image_processor, size):
        yield model.pixels(pixels)


def _read(model: Any, stream: Iterator[Tensor], labels: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The read-outs (batch, d_readout) of each batch, with its labels."""
    seen, all_labels = 0, torch.tensor(labels)
    for pixels in stream:
        for part in pixels.split(model.per_request or len(pixels)):
            with torch.no_grad(), model.trace(part):
                with torch.no_grad():
                    readout = model.readout.clone()
                nnsight.save(readout)
            yield readout, all_labels[seen : seen + len(part)]
            seen += len(part)
