"""A request with everything it names loaded and checked: model, images, label match, layers, donors."""

import logging
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from clsinterp import interventions
from clsinterp.data.batches import without_unreadable
from clsinterp.data.labels import LabelMatch, match_labels
from clsinterp.data.sources import open_data
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.models.layers import check_layers
from clsinterp.models.wheels import short_note
from clsinterp.probing.ridge import FOLDS
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.units import Layout
from clsinterp.vision_model import VisionModel

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
    """

    request: Request
    model: VisionModel
    train: Split
    test: Split
    match: LabelMatch
    layers: tuple[int, ...]
    donors: list[Tensor]

    @classmethod
    def of(cls, request: Request, resources: Resources, skipped: dict[str, list[str]] | None = None) -> "Study":
        """Load what `request` names.

        Args:
            request: what was asked.
            resources: where the model goes.
            skipped: unreadable images of the train and test split, where an earlier look at all of them is on record.

        Raises:
            RequestError: anything in it that cannot be done.
        """
        model = VisionModel(
            request.model,
            config=request.config,
            dtype=request.dtype,
            image_size=request.image_size,
            device=resources.device,
            revision=request.revision,
            allow_pickle=request.allow_pickle,
            remote=resources.server or False,
            **({} if resources.device_map is None else {"device_map": resources.device_map}),
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
            known = skipped or {}
            train = without_unreadable(train, resources.workers, known.get("train"))
            test = without_unreadable(test, resources.workers, known.get("test"))
        match = match_labels(train.class_names, model.class_names, request.head, request.label_map)
        if match.how not in ("name", "map"):
            logger.warning("%s.", match.note)
        return cls(request, model, train, test, match, layers, _draw(request, test))

    @property
    def wants_head(self) -> bool:
        """Whether a classifier is fitted here."""
        return self.match.how == "fit" or self.request.cls_only == "refit"

    @property
    def unit_layout(self) -> Layout:
        """How the run is cut into units."""
        solves = [f"probe {layer}" for layer in self.layers]
        solves += ["head"] * self.wants_head + ["cls_head"] * (self.request.cls_only == "refit")
        ratio = FOLDS * (self.model.d_model + len(self.train.class_names))
        return Layout.of(len(self.train), len(self.test), self.request.batch_size, tuple(solves), ratio)

    def job(self) -> dict[str, Any]:
        """All that workers and the assembly need to know and agree on, as JSON.

        ``identity`` is what must be the same for a process to join: the request, the images, the weights, the package's
        version. ``facts`` is what tables and figures say of the run, ``manifest`` the rest of ``run.json`` as far as it
        is known before anything was computed.
        """
        model, request = self.model, self.request
        data = {"train": self.train.fingerprint(), "test": self.test.fingerprint()}
        n_labels = len(self.train.class_names)
        identity = {
            **asdict(request),
            "fingerprint": {**data, "weights": model.fingerprint()},
            "clsinterp": version("clsinterp"),
            "remote": model.server is not None,
        }
        facts = {
            "model": request.model,
            "note": short_note(request.model),
            "family": model.family.name,
            "n_layers": model.n_layers,
            "n_classes": n_labels if self.match.how == "fit" else model.n_classes,
            "n_labels": n_labels,
            "seed": request.seed,
            "mode": request.mode,
            "final_norm": request.final_norm if model.lens_norm is not None else None,
            "data": request.data,
            "head": self.match.how,
        }
        manifest = {
            "checkpoint": {
                "source": model.checkpoint.source,
                "revision": model.checkpoint.revision,
                "class": type(model._module).__name__,
                "head_is_own": model.checkpoint.head_is_own,
            },
            "layers": list(self.layers),
            "d_model": model.d_model,
            "labels": {**asdict(self.match), "map": request.label_map},
            "class_names": self.train.class_names,
            "counts": {
                "train": len(self.train),
                "test": len(self.test),
                "skipped": {"train": list(self.train.skipped), "test": list(self.test.skipped)},
            },
            **self._where(),
            "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        }
        return {"identity": identity, "facts": facts, "layout": asdict(self.unit_layout), "manifest": manifest}

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
            'clsinterp.sweeps.capture.capture(model, pixels, layers, group="patches") gives patch tokens to probe.'
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
