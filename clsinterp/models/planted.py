"""Vision transformers of which it is known where the label is and what the output depends on.

A tool that says where a label is decodable and where it is used should be tried on models in which both are known. Here
they are built: small Hugging Face checkpoints with hand-set weights that classify their images without an error, and are
saved, loaded and run like any other. L blocks, C classes; layer l is the residual stream after block l, -1 is before block 0.

**Images.** Every patch shows label k in its red channel: pixel k is 255, all others are 0. Green and blue are random bytes,
which nothing reads, so that no two images are alike.

**Blocks** are idle and pass the stream on as it is, but for at most four. Each range below holds the label as a code of its own;
`clsinterp.models.hand_set` says how a block does what is said here.

- Patches say the label in range ``says``, from the embeddings on.
- Block `probe_from` (a) fetches it from patches into ``holds`` of CLS, which nobody reads. (Not if a = b.)
- Block `used_from` (b) fetches it from patches into ``reads`` of CLS, and forgets ``holds``: what CLS held is gone, and what
  it is used for is new.
- Block `used_until` (e) fetches it from ``reads`` of CLS into ``fetched`` of every token. (Only where patches are read.)
- Block `sink` attends to CLS, in every token, where there is nothing to read: nothing comes of it. But patches that may not
  attend to CLS there read each other, and say the opposite of the label from then on.
- The classifier reads ``reads`` of CLS after the final LayerNorm (``reads="cls"``), or the mean patch (``reads="patches"``):
  its ``fetched``, or its ``says`` in a model without b.

**What every curve must be.** Let s be the share of images whose donor has their label, and e = L where CLS is read.

- Intact accuracy is 1.
- CLS swapped at layer l: where b <= l < e the output is the donor's, so accuracy is s, donor accuracy 1 and the share of
  unchanged answers s. At every other l, and at every l without b, nothing changes: accuracy 1, donor accuracy s. Zeros or
  means in the place of a donor's token change the output at the same layers and nowhere else.
- Patches swapped at layer l: the other way round.
- CLS kept from reading (`clsinterp.sweeps.knock`), where CLS is read: if block b is among the blocks, it never gets the label,
  all classes tie and class 0 is answered; otherwise nothing changes. With the keys and values of the mean image in the place of
  what it may not read it gets the mean code instead, and answers the most frequent class of the batch.
- Patches kept from reading CLS: nothing changes, at any l, but that a `sink` among the blocks makes the label the last of all
  answers, where it is read from patches after that. With the mean CLS token in its place: nothing changes, sink or not, until
  block e, in which patches fetch the mean code from it.
- Probe on CLS at layer j: for j < a all CLS tokens are the same, so one class is answered, the one with most training
  images, and accuracy is its share; from a on it is 1.
- Restoration, CLS swapped at l and probed at j >= l: for j < a as without a swap. From then on what the probe reads was last
  written by block w, which is b if b <= j, else a: it is the host's label (accuracy 1) if l < w, the donor's (s) if l >= w.
- Lens: until the classifier's range is written in CLS all classes tie there, and class 0 is answered: its share. Then 1:
  from b on where CLS is read, from e on where patches are, never without b.

Of ``clsinterp check`` one finding fails: it wants every hook to matter, and an edit inside an idle block changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import transformers
from PIL import Image
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.hand_set import HandSet

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Planted:
    """A model whose inside is known, and its images.

    Attributes:
        model: a ViTForImageClassification or BeitForImageClassification on the CPU; `VisionModel` takes it.
        processor: the image processor that belongs to it.
        probe_from, used_from: as given to `planted`.
        used_until: the first layer from which on swaps change nothing again; the number of blocks where CLS is read; None
            where they never change anything.
        reads: ``cls`` or ``patches``.
        sink: the block in which attention rests on CLS for nothing; None: there is none.
    """

    model: Any
    processor: Any
    probe_from: int | None
    used_from: int | None
    used_until: int | None
    reads: str
    sink: int | None = None

    @property
    def class_names(self) -> list[str]:
        """``class_0``, ``class_1``, ..: the classifier's, and the folders of `write_images`."""
        return [self.model.config.id2label[k] for k in range(self.model.config.num_labels)]

    # -- the truth -----------------------------------------------------------

    def output_follows(self, layer: int) -> Literal["host", "donor"]:
        """Whose label the output is after CLS tokens were swapped at `layer`; a swap of patches gives the other."""
        if self.used_from is None or self.used_until is None:
            return "host"
        return "donor" if self.used_from <= layer < self.used_until else "host"

    def probe_follows(self, probed: int, swapped: int = -1) -> Literal["host", "donor"] | None:
        """Whose label a probe at layer `probed` reads after CLS tokens were swapped at `swapped` <= `probed`.

        None: nobody's, the CLS token says nothing there. A swap at -1 is as good as none: CLS tokens are the same there.
        """
        if self.probe_from is None or probed < self.probe_from:
            return None
        written = self.probe_from if self.used_from is None or probed < self.used_from else self.used_from
        return "host" if swapped < written else "donor"

    # -- images and files ----------------------------------------------------

    def image(self, label: int, seed: int | Sequence[int] = 0) -> Image.Image:
        """An image of class `label`; `seed` draws the bytes that nothing reads."""
        side, patch = self.model.config.image_size, self.model.config.patch_size
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[..., 0] = 0
        pixels[label // patch :: patch, label % patch :: patch, 0] = 255
        return Image.fromarray(pixels)

    def pixels(self, labels: Sequence[int], seed: int = 0) -> Float[Tensor, "batch 3 side side"]:
        """Preprocessed pixel values of one image per entry of `labels`."""
        images = [self.image(label, (seed, i)) for i, label in enumerate(labels)]
        return self.processor(images=images, return_tensors="pt")["pixel_values"]

    def save(self, folder: str | Path) -> Path:
        """Write the checkpoint and its image processor as Hugging Face does; returns the folder, for ``clsinterp run``."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return Path(folder)

    def write_images(
        self, folder: str | Path, train: int | Sequence[int], test: int | Sequence[int], seed: int = 0
    ) -> Path:
        """Write ``train/class_0/0000.png``, .. and ``test/..``; returns the folder, for ``clsinterp run --data``.

        Args:
            folder: made if it is not there.
            train, test: images of each class: one number for all, or one for each.
            seed: of the bytes that nothing reads.

        Raises:
            RequestError: neither one number nor one for each class.
        """
        names = self.class_names
        splits = {"train": train, "test": test}
        counts = {split: [n] * len(names) if isinstance(n, int) else list(n) for split, n in splits.items()}
        for split, numbers in counts.items():
            _refuse(
                len(numbers) != len(names),
                f"{len(numbers)} numbers of {split} images were given; one, or one for each of {len(names)} classes, is expected",
            )
        for place, (split, numbers) in enumerate(counts.items()):
            for label, n in enumerate(numbers):
                where = Path(folder) / split / names[label]
                where.mkdir(parents=True, exist_ok=True)
                for i in range(n):
                    self.image(label, (seed, place, label, i)).save(where / f"{i:04d}.png")
        return Path(folder)


def planted(
    probe_from: int | None,
    used_from: int | None,
    *,
    used_until: int | None = None,
    reads: Literal["cls", "patches"] = "cls",
    n_layers: int = 6,
    n_classes: int = 4,
    grid: int = 2,
    sink: int | None = None,
) -> Planted:
    """A model in which the label is in CLS from one block on and the output depends on CLS from another on.

    How it is made, and what every curve of it must be, stands at the top of this module.

    Args:
        probe_from: the block that writes the label into the CLS token; None: it never gets there.
        used_from: the first layer at which a swap of CLS tokens changes the output, not before `probe_from`; None: no swap
            ever does, which takes ``reads="patches"``.
        used_until: with ``reads="patches"``: the block in which patches fetch the label from CLS, so that swaps from there
            on change nothing; default the last.
        reads: what the classifier reads: ``cls`` (a ViT) or ``patches`` (their mean, a BEiT).
        n_layers: blocks.
        n_classes: classes, at least 2.
        grid: patches along each side of an image.
        sink: a block in which every token attends to CLS and gets nothing; None: no block does. Only where patches are read.

    Raises:
        RequestError: a model that cannot be.

    Example:
        >>> p = planted(1, 3, n_layers=4)
        >>> p.model(p.pixels([2, 0, 1, 3])).logits.argmax(-1).tolist()
        [2, 0, 1, 3]
        >>> p.probe_follows(1), p.output_follows(2), p.output_follows(3)
        ('host', 'host', 'donor')
    """
    until = _until(probe_from, used_from, used_until, reads, n_layers)
    _refuse(n_classes < 2, f"{n_classes} classes were given; at least 2 are expected")
    _refuse(sink is not None and reads != "patches", f'sink={sink} was given; it is for a model with reads="patches"')
    _refuse(
        sink is not None and (not 0 <= sink < n_layers or sink in (probe_from, used_from, until)),
        f"sink={sink} was given; a block of 0 to {n_layers - 1} that has nothing else to do is expected",
    )
    weights = HandSet(reads, n_layers, n_classes, grid)
    if sink is not None:
        weights.park(sink)
    if probe_from is not None and probe_from != used_from:
        weights.fetch(probe_from, "says", "holds", of="patches")
    if used_from is not None:
        weights.fetch(used_from, "says", "reads", of="patches")
        if probe_from != used_from:
            weights.forget(used_from, "holds")
    if reads == "patches" and until is not None:
        weights.fetch(until, "reads", "fetched", of="cls")
    weights.classify("reads" if reads == "cls" else "says" if used_from is None else "fetched")
    side = weights.model.config.image_size
    processor = transformers.ViTImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return Planted(weights.model, processor, probe_from, used_from, until, reads, sink)


def _until(
    probe_from: int | None, used_from: int | None, used_until: int | None, reads: str, n_layers: int
) -> int | None:
    """`used_until` as the model has it, when all of them fit together."""
    last = n_layers - 1
    _refuse(reads not in ("cls", "patches"), f"reads={reads!r} was given; cls or patches is expected")
    for name, value in (("probe_from", probe_from), ("used_from", used_from), ("used_until", used_until)):
        _refuse(value is not None and not 0 <= value <= last, f"{name}={value} was given; the blocks are 0 to {last}")
    if used_from is None:
        _refuse(reads == "cls", 'used_from=None was given, but the classifier reads CLS; use reads="patches"')
        _refuse(used_until is not None, f"used_until={used_until} was given without used_from; give both or neither")
        return None
    _refuse(
        probe_from is None or probe_from > used_from,
        f"probe_from={probe_from} was given with used_from={used_from}; what is used can be probed: 0 to {used_from} fits",
    )
    if reads == "cls":
        _refuse(
            used_until is not None,
            f"used_until={used_until} was given, but a CLS token that is read is used to the end",
        )
        return n_layers
    until = last if used_until is None else used_until
    _refuse(
        until <= used_from, f"used_until={until} is not after used_from={used_from}; patches fetch in a later block"
    )
    return until


def _refuse(condition: bool, why: str) -> None:
    if condition:
        raise RequestError(f"{why}.")
