"""What a study works on: a model, images, and the classifier that reads the model on them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from clsinterp.data.batches import batches
from clsinterp.data.label_map import LabelMap
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.models.loading import fresh
from clsinterp.models.placement import exact
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import FOLDS, Ridge, RidgeStats, solve
from clsinterp.probing.streams import fit_head, statistics
from clsinterp.runs.loading import Loaded, load
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.variants import INTACT, variants
from clsinterp.vision_model import VisionModel

Bars = Callable[[Iterator[Any], int, str], Iterator[Any]]


@dataclass(frozen=True)
class Batch:
    """Some images of a split.

    Attributes:
        number: of the batch, from 0.
        pixels: (batch, channel, height, width), on the model's device.
        labels: classes of the data.
        targets: the same classes in the classifier's order.
    """

    number: int
    pixels: Tensor
    labels: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Setup(Loaded):
    """What a study works on: model and images, and what reads them.

    Attributes:
        name: hub id, zoo/NAME, or the last part of a folder's path.
        head: the classifier: the model's own, or one fitted by ridge on the train images' read-outs.
        seed: of every random choice.
        batch_size: images per batch; swaps happen within one.
        workers: processes that decode images; None: by the number of cores.
        bars: wraps an iterator in a progress bar.
    """

    name: str
    head: Head
    seed: int = 0
    batch_size: int = 128
    workers: int | None = None
    bars: Bars = lambda batches, total, what: batches

    @classmethod
    def open(
        cls,
        name: str,
        data: str,
        *,
        limit: int | None = None,
        train_per_class: int | None = None,
        test_per_class: int | None = None,
        image_size: int | None = None,
        classifier: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        head: str = "auto",
        label_map: LabelMap | None = None,
        **options: Any,
    ) -> Self:
        """Load model and images; fit a classifier where the checkpoint's own does not fit the data.

        Args:
            name: hub id, checkpoint folder or zoo/NAME.
            data: as in `clsinterp.data.sources.open_data`.
            limit, train_per_class, test_per_class: how many images, as in `open_data`.
            image_size, classifier: side in pixels that images are brought to, and what answers, as in `VisionModel`.
            device: where the model runs.
            dtype: of its weights.
            head, label_map: as in `clsinterp.data.labels.match_labels`.
            **options: `seed`, `batch_size`, `workers` and `bars` of the setup.

        Raises:
            RequestError: a model or data that cannot be had, a size that the model does not take, or a batch size below 2.
        """
        if options.get("batch_size", 2) < 2:
            raise RequestError(f"a batch size of {options['batch_size']} was given; swapping needs at least 2.")
        images = {"seed": options.get("seed", 0), "limit": limit, "train_per_class": train_per_class,
                  "test_per_class": test_per_class}  # fmt: skip
        loading = {"device": device, "dtype": dtype, "image_size": image_size, "classifier": classifier}
        loaded = load(name, data, model=loading, images=images, head=head, label_map=label_map)
        return cls._reading(Path(name).name if Path(name).is_dir() else name, loaded, **options)

    @classmethod
    def of(
        cls, name: str, model: VisionModel, train: Split, test: Split, *, head: str = "auto",
        label_map: LabelMap | None = None, **options: Any,
    ) -> Self:  # fmt: skip
        """The same from what is loaded already."""
        return cls._reading(name, Loaded.matched(model, train, test, head, label_map), **options)

    @classmethod
    def _reading(cls, name: str, loaded: Loaded, **options: Any) -> Self:
        family, fit = loaded.model.family, loaded.match.how == "fit"
        head = Head((), (), family.readouts, False) if fit else Head.of(family, loaded.model.heads)
        setup = cls(**vars(loaded), name=name, head=head, **options)
        return replace(setup, head=setup.fitted_head()) if fit else setup

    @property
    def reads_by_ridge(self) -> bool:
        """Whether the classifier is a ridge fit, whose scores are no probabilities."""
        return self.match.how == "fit" or self.model.checkpoint.head_from == "fitted"

    @property
    def n_classes(self) -> int:
        """Classes of the data, which probes tell apart."""
        return len(self.train.class_names)

    @property
    def n_answers(self) -> int:
        """Classes of the classifier."""
        return self.head.n_classes

    @property
    def layers(self) -> tuple[int, ...]:
        """Every layer of the model."""
        return tuple(range(self.model.n_layers))

    def facts(self) -> dict[str, Any]:
        """Columns that say whose numbers a table holds."""
        return {"model": self.name, "family": self.model.family.name}

    def batches(self, split: Split, what: str = "") -> Iterator[Batch]:
        """The batches of `split` in order, behind a progress bar called `what`."""
        labels, classes = torch.tensor(split.labels), torch.tensor(self.match.classes)
        stream = batches(split, self.model.image_processor, self.batch_size, workers=self.workers)
        total = -(-len(split) // self.batch_size)
        for b, pixels in enumerate(self.bars(stream, total, what)):
            own = labels[b * self.batch_size : b * self.batch_size + len(pixels)]
            yield Batch(b, self.model.pixels(pixels), own, classes[own])

    def fitted_head(self) -> Head:
        """A ridge classifier on the read-outs of the train images."""

        def features(batch: Batch) -> Tensor:
            return variants(self.model, batch.pixels, []).readout[INTACT]

        stream = ((features(batch), batch.labels) for batch in self.batches(self.train, "head"))
        head = fit_head(stream, self.model.family, self.n_classes)
        return head.to(exact(next(self.model._module.parameters()).device))

    def read_train(self, what: str = "train") -> tuple[Ridge, Tensor]:
        """One pass over the train images: ridge probes of the CLS token after every block, and the mean read-out.

        Returns:
            A probe per layer, and (d_readout,) in float64, at which a read-out that is turned off can be held.
        """
        stats, mean = self.train_statistics(what)
        return solve(stats), mean

    def train_statistics(self, what: str = "train") -> tuple[RidgeStats, Tensor]:
        """The sums that those probes stand on, and the mean read-out (d_readout,) in float64, from the same pass."""
        total: Any = 0

        def tokens(batch: Batch) -> Tensor:
            nonlocal total
            found, readout = capture(self.model, batch.pixels, self.layers)
            total = total + readout.double().sum(0)
            return found

        return self._statistics(tokens, what), total / len(self.train)

    def fit_on_train(self, features: Callable[[Batch], Tensor], what: str, every: int = 1) -> Ridge:
        """Ridge probes fitted in one pass over the train images.

        Args:
            features: of a batch, (probe, image, d): one probe for each entry of the first axis.
            what: name of the progress bar.
            every: `features` are those of every so many images of the batch, from its first on.
        """
        return solve(self._statistics(features, what, every))

    def _statistics(self, features: Callable[[Batch], Tensor], what: str, every: int = 1) -> RidgeStats:
        stream = ((features(batch), batch.labels[::every]) for batch in self.batches(self.train, what))
        return statistics(stream, self.n_classes, n_folds=min(FOLDS, -(-len(self.train) // every)))

    def outputs(self, batch: Batch, edits: list) -> Tensor:
        """Logits (1 + edits, batch, class) of the intact batch and of every edit."""
        found = variants(self.model, batch.pixels, edits).readout
        return torch.stack([self.head(found[k]) for k in sorted(found)]).cpu()

    def twin(self) -> Self:
        """The same with a randomly initialised model of the same configuration, its classifier made by the same rule."""
        module = self.model._module
        # The draw must not depend on what ran before, nor leave a trace in the global random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            random = fresh(module, self.model.family.library)
        random = random.to(next(module.parameters()))
        model = VisionModel(random.eval(), image_processor=self.model.image_processor)
        model.checkpoint = replace(model.checkpoint, head_is_own=self.model.checkpoint.head_is_own)
        if self.match.how == "fit":
            options = {n: getattr(self, n) for n in ("seed", "batch_size", "workers", "bars")}
            drawn = replace(self, model=model, name=f"{self.name}, random", **options)
            return replace(drawn, head=drawn.fitted_head())
        return replace(self, model=model, name=f"{self.name}, random", head=Head.of(model.family, model.heads))
