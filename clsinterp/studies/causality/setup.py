"""A `Setup` of counting images: garments of any labelled images on canvases, clean and corrupted side by side."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clsinterp.data.sources import open_data
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.runs.loading import load_model
from clsinterp.studies.causality.images import NAMES, Pairs, make_pairs, objects, on_grid, pictures
from clsinterp.studies.setup import Batch, Setup
from clsinterp.sweeps.variants import INTACT, variants

TRAIN, TEST = 1000, 300  # pairs
GROUPS = ("CLS", "removed object", "other objects", "background", "all patches")


@dataclass(frozen=True)
class CountingSetup(Setup):
    """A model and the pairs it counts in; images of both splits are clean 0, corrupted 0, clean 1, corrupted 1, ..

    Attributes:
        train_pairs, test_pairs: the images with their masks.
    """

    train_pairs: Pairs | None = None
    test_pairs: Pairs | None = None

    @classmethod
    def open(
        cls, name: str, data: str, *, limit: int | None = None, train_per_class: int | None = None,
        test_per_class: int | None = None, image_size: int | None = None,
        classifier: str | Path | None = None, device: str = "auto", dtype: str = "auto", **options: Any,
    ) -> Self:  # fmt: skip
        """Load the model, make pairs of the objects in `data`; a model that does not count gets a fitted head.

        Args:
            name: hub id, checkpoint folder or zoo/NAME.
            data: labelled images, used as objects; as in `clsinterp.data.sources.open_data`.
            limit: first N train and test images as objects, and at most N pairs of each split.
            train_per_class, test_per_class: refused: canvases are made, and their classes are counts.
            image_size, classifier: side in pixels that canvases are brought to, and what counts, as in `VisionModel`.
            device: where the model runs.
            dtype: of its weights.
            **options: as for `Setup`; the batch size must be even, since pairs stand side by side.

        Raises:
            RequestError: a model or data that cannot be had, a size that the model does not take, images by class, an odd batch
                size, or objects that cannot be seen.
        """
        for asked, given in (("train_per_class", train_per_class), ("test_per_class", test_per_class)):
            if given is not None:
                raise RequestError(
                    f"{asked}={given} was given; this study makes its own images, of counts; limit= says how many pairs."
                )
        size, seed = options.get("batch_size", 128), options.get("seed", 0)
        if size % 2:
            raise RequestError(f"a batch size of {size} was given; pairs stand side by side, so it has to be even.")
        model = load_model(name, device=device, dtype=dtype, image_size=image_size, classifier=classifier)
        pairs = {}
        for part, (split, most) in enumerate(zip(open_data(data, seed=seed, limit=limit), (TRAIN, TEST), strict=True)):
            garments = objects([split.image(i) for i in range(len(split))])
            pairs[part] = make_pairs(garments, min(most, limit or most), (seed, part))
        splits = [as_split(pairs[part], ("train", "test")[part]) for part in (0, 1)]
        shown = Path(name).name if Path(name).is_dir() else name
        return cls.of(shown, model, *splits, train_pairs=pairs[0], test_pairs=pairs[1], **options)

    def masks(self, pairs: Pairs, batch: Batch) -> dict[str, Bool[Tensor, "batch token"]]:
        """Group of tokens -> where it is, the same in both images of a pair.

        ``removed object`` are the patches that the removed object touches, ``other objects`` those that only others
        touch, ``background`` the rest.
        """
        model = self.model
        grid = model.patch_grid(batch.pixels)
        first = batch.number * self.batch_size // 2
        chosen = slice(first, first + len(batch) // 2)
        removed, others = (on_grid(mask[chosen], *grid) for mask in (pairs.removed, pairs.others))
        patches = {
            "removed object": removed,
            "other objects": others & ~removed,
            "background": ~others & ~removed,
            "all patches": torch.ones_like(removed),
        }
        n_tokens = model.layout.n_prefix + removed.shape[1]
        found = {}
        if "cls" in model.layout.slices:
            found["CLS"] = torch.zeros(len(batch), n_tokens, dtype=torch.bool)
            found["CLS"][:, model.layout.index("cls")] = True
        for name, mask in patches.items():
            found[name] = torch.zeros(len(batch), n_tokens, dtype=torch.bool)
            found[name][:, model.layout.index("patches")] = mask.repeat_interleave(2, 0)
        return found

    def group_means(self, pairs: Pairs, batch: Batch) -> dict[tuple[str, int], Float[Tensor, "clean d_model"]]:
        """(group, layer) -> mean token of the group in each clean image of a batch; zeros where it has no token."""
        masks = {group: mask[::2].float() for group, mask in self.masks(pairs, batch).items()}
        every = list(range(next(iter(masks.values())).shape[1]))
        seen = variants(self.model, batch.pixels[::2], [], watch=every, watched=self.layers).tokens
        return {
            (group, layer): torch.einsum("bt,btd->bd", m, seen[layer][INTACT].cpu())
            / m.sum(1, keepdim=True).clamp(min=1)
            for group, m in masks.items()
            for layer in self.layers
        }


def partner(n: int) -> Int[Tensor, " n"]:
    """Place of each image's partner in a batch of pairs: 1, 0, 3, 2, .."""
    return torch.arange(n) ^ 1


def as_split(pairs: Pairs, name: str) -> Split:
    """Pairs as a split: clean and corrupted images in turn, labelled with their counts."""
    import datasets

    both = torch.stack([pairs.clean, pairs.corrupted], dim=1).flatten(0, 1)
    labels = torch.stack([pairs.count - 1, pairs.count - 2], dim=1).flatten().tolist()
    cells = []
    for picture in pictures(both):
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = datasets.Dataset.from_dict({"image": cells}, features=features)
    sources = [f"{name}/{i // 2:05d}-{('clean', 'corrupted')[i % 2]}" for i in range(len(cells))]
    return Split(rows, "image", list(range(len(cells))), sources, labels, NAMES)
