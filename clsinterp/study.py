"""A request with everything it names loaded and checked: model, images, label match, layers, donors."""

import logging
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from clsinterp import interventions
from clsinterp.data import Split, open_data
from clsinterp.errors import RequestError
from clsinterp.fork import check_layers
from clsinterp.labels import LabelMatch, match_labels
from clsinterp.loader import without_unreadable
from clsinterp.model import VisionModel
from clsinterp.probes import Ridge
from clsinterp.readout import Head
from clsinterp.remote.server import Server
from clsinterp.request import Request

logger = logging.getLogger(__name__)
PACKAGES = ("clsinterp", "torch", "nnsight", "transformers", "datasets", "pillow")


@dataclass(frozen=True)
class Study:
    """What a run works on.

    Attributes:
        request: what was asked.
        model, train, test: loaded.
        match: how labels of the data become classes of the classifier.
        layers: the layers asked for, sorted.
        donors: for each test batch, whose token each image gets (places within the batch).
        workers: processes that decode images; None is by the number of cores.
    """

    request: Request
    model: VisionModel
    train: Split
    test: Split
    match: LabelMatch
    layers: tuple[int, ...]
    donors: list[Tensor]
    workers: int | None

    @classmethod
    def of(cls, request: Request, device: str, workers: int | None, server: Server | None = None) -> "Study":
        """Load what `request` names; with a `server`, the model stays there.

        Raises:
            RequestError: anything in it that cannot be done.
        """
        model = VisionModel(
            request.model,
            config=request.config,
            dtype=request.dtype,
            device=device,
            revision=request.revision,
            allow_pickle=request.allow_pickle,
            remote=server or False,
        )
        _refuse_unfit(request, model)
        layers = check_layers(range(model.n_layers) if request.layers is None else request.layers, model.n_layers)
        if not layers:
            raise RequestError("no layers were given; name some with --layers, or all.")
        train, test = open_data(
            request.data,
            request.train_split,
            request.test_split,
            seed=request.seed,
            train_per_class=request.train_per_class,
            test_per_class=request.test_per_class,
            limit=request.limit,
            image_column=request.image_column,
            label_column=request.label_column,
        )
        if request.on_bad_image == "skip":
            train, test = (without_unreadable(split, workers) for split in (train, test))
        match = match_labels(train.class_names, model.class_names, request.head)
        if match.how != "name":
            logger.warning("%s.", match.note)
        return cls(request, model, train, test, match, layers, _draw(request, test), workers)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed: the request, the images, the weights, the package's version."""
        data = {"train": self.train.fingerprint(), "test": self.test.fingerprint()}
        return {
            **asdict(self.request),
            "fingerprint": {**data, "weights": self.model.fingerprint()},
            "clsinterp": version("clsinterp"),
            "remote": self.model.server is not None,
        }

    def facts(self, head: Head) -> dict[str, Any]:
        """What the tables and figures need to know."""
        return {
            "model": self.request.model,
            "family": self.model.family.name,
            "n_layers": self.model.n_layers,
            "n_classes": head.n_classes,
            "n_labels": len(self.train.class_names),
            "seed": self.request.seed,
            "mode": self.request.mode,
            "final_norm": self.request.final_norm if self.model.lens_norm is not None else None,
            "data": self.request.data,
            "head": self.match.how,
        }

    def manifest(self, images: pa.Table, ridge: Ridge) -> dict[str, Any]:
        """The rest of ``run.json``: where everything came from, what was counted."""
        label, donor = (torch.from_numpy(images[c].to_numpy().copy()).long() for c in ("label", "donor"))
        return {
            "checkpoint": {
                "source": self.model.checkpoint.source,
                "revision": self.model.checkpoint.revision,
                "class": type(self.model._module).__name__,
                "head_is_own": self.model.checkpoint.head_is_own,
            },
            "layers": list(self.layers),
            "labels": {"how": self.match.how, "classes": list(self.match.classes), "note": self.match.note},
            "class_names": self.train.class_names,
            "collision_rate": interventions.collision_rate(label, donor),
            "own_cls_rate": float((donor == torch.arange(len(donor))).double().mean()),
            "counts": {
                "train": len(self.train),
                "test": len(self.test),
                "skipped": {"train": list(self.train.skipped), "test": list(self.test.skipped)},
            },
            "alpha": dict(zip(map(str, self.layers), ridge.alpha.tolist(), strict=True)),
            **self._where(),
            "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        }

    def _where(self) -> dict[str, Any]:
        """Device and dtype of the model, and the server's part if it has one."""
        model = self.model
        if model.server is None:
            parameter = next(model._module.parameters())
            return {"device": str(parameter.device), "dtype": str(parameter.dtype).removeprefix("torch.")}
        there = model.server_facts
        remote = {"host": model.server.url, "model_key": model.to_model_key(), "versions": there["versions"]}
        return {"device": there["device"], "dtype": there["dtype"], "remote": remote}


def _refuse_unfit(request: Request, model: VisionModel) -> None:
    family = model.family
    if not family.has_cls:
        raise RequestError(
            f"a {family.name} model has no CLS token to swap or probe; in Python, "
            'clsinterp.capture.capture(model, pixels, layers, group="patches") gives patch tokens to probe.'
        )
    if model.image_processor is None:
        raise RequestError(
            f"{request.model} ships no image processor (preprocessor_config.json) to prepare images with."
        )
    if request.cls_only == "refit" and not family.other_readouts:
        raise RequestError(
            f"--cls-only refit was given, but a {family.name} model reads {' and '.join(family.readouts)} only: "
            "there is no CLS read-out beside others to keep."
        )


def _draw(request: Request, test: Split) -> list[Tensor]:
    """The donors of every batch, all drawn first: a batch in which the mode cannot be had stops the run early."""
    drawn = []
    for b, part in enumerate(torch.tensor(test.labels).split(request.batch_size)):
        try:
            drawn.append(interventions.donors(request.mode, part, (request.seed, b)))
        except RequestError as error:
            raise RequestError(f"batch {b} ({len(part)} images) cannot be swapped: {error}") from error
    return drawn
