"""A request with everything it names loaded and checked: model, images, label match, layers, donors."""

import logging
import platform
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from clsinterp import interventions
from clsinterp.data.batches import without_unreadable
from clsinterp.data.content import Memory
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.figures.facts import Facts
from clsinterp.models.layers import check_layers
from clsinterp.models.wheels import short_note
from clsinterp.probing.ridge import FOLDS
from clsinterp.runs import extras
from clsinterp.runs.cost import swap_passes
from clsinterp.runs.job import Counts, Identity, Job, Manifest
from clsinterp.runs.loading import Loaded, load
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.units import Layout
from clsinterp.vision_model import VisionModel

logger = logging.getLogger(__name__)
PACKAGES = ("clsinterp", "torch", "nnsight", "transformers", "datasets", "pillow")
IMAGES = (
    "train_split", "test_split", "seed", "train_per_class", "test_per_class", "limit", "image_column", "label_column",
)  # fmt: skip


@dataclass(frozen=True)
class Workload(Loaded):
    """What a run works on: model and images, and how they are gone through.

    Attributes:
        request: what was asked.
        layers: the layers asked for, sorted.
        donors: for each test batch and each of its swaps, whose token each image gets (places within the batch); None for
            a mode without donors.
    """

    request: Request
    layers: tuple[int, ...]
    donors: list[list[Tensor]] | None

    @classmethod
    def of(cls, request: Request, resources: Resources, skipped: dict[str, list[str]] | None = None) -> "Workload":
        """Load what `request` names.

        Args:
            request: what was asked.
            resources: where the model goes.
            skipped: unreadable images of the train and test split, where an earlier look at all of them is on record.

        Raises:
            RequestError: anything in it that cannot be done.
        """
        model = {name: getattr(request, name) for name in ("config", "dtype", "image_size", "revision", "allow_pickle")}
        model |= {"device": resources.device, "remote": resources.server or False}
        model |= {} if resources.device_map is None else {"device_map": resources.device_map}
        images = {name: getattr(request, name) for name in IMAGES}
        check = partial(_refuse_unfit, request)
        match: dict[str, Any] = {name: getattr(request, name) for name in ("head", "classes", "templates", "label_map")}
        loaded = load(request.model, request.data, model=model, images=images, **match, check=check)
        if request.on_bad_image == "skip":
            known = skipped or {}
            train = without_unreadable(loaded.train, resources.workers, known.get("train"))
            test = without_unreadable(loaded.test, resources.workers, known.get("test"))
            loaded = replace(loaded, train=train, test=test)
        if loaded.match.how not in ("name", "map", "text"):
            logger.warning("%s.", loaded.match.note)
        layers, drawn = _layers(request, loaded.model), _draw(request, loaded.test)
        workload = cls(**vars(loaded), request=request, layers=layers, donors=drawn)
        for what, passes in workload.block_passes.items():
            logger.info("block-passes of an image, %s: %d", what, passes)
        return workload

    @property
    def block_passes(self) -> dict[str, int]:
        """Through how many blocks an image goes: of the train split; of the test split under the swaps, and for each of `also`.

        Where memory is too short for a batch with its copies, the swaps take a pass of the intact batch more.
        """
        n_layers, layers = self.model.n_layers, self.layers
        swaps = self.request.swaps * swap_passes(n_layers, layers)
        beside = {name: extras.EXTRAS[name] for name in self.request.also}
        return {"train": n_layers, "test": swaps} | {
            f"test, --also {name}": extra.block_passes(self.model.layout, n_layers, layers)
            for name, extra in beside.items()
        }

    @property
    def wants_head(self) -> bool:
        """Whether a classifier is fitted here."""
        return self.match.how == "fit" or self.request.cls_only == "refit"

    @property
    def cls_only(self) -> str | None:
        """What becomes of the other read-outs on the CLS-only curves; None where there are no such curves.

        As asked, but for read-outs that have a head each: there the CLS token's is taken ``alone``, and nothing is held.
        """
        family, asked = self.model.family, self.request.cls_only
        if not family.other_readouts:
            return None
        return "alone" if family.averages_heads and asked != "refit" else asked

    @property
    def wants_rest(self) -> bool:
        """Whether the mean of the read-out is needed: where one map reads all of it and CLS is to be read alone."""
        return self.cls_only == "mean"

    def replacement(self, b: int, swap: int) -> Tensor | interventions.TokenEdit:
        """Donors of test batch `b` under its draw number `swap`, or what is put in their tokens' place."""
        if self.donors is not None:
            return self.donors[b][swap]
        return interventions.replacement(self.request.mode, _seed(self.request, b, swap))

    @property
    def unit_layout(self) -> Layout:
        """How the run is cut into units."""
        solves = [f"probe {layer}" for layer in self.layers]
        solves += ["head"] * self.wants_head + ["cls_head"] * (self.request.cls_only == "refit")
        solves += ["rest"] * self.wants_rest
        solves += extras.solves(self.request.also, self.layers)
        ratio = FOLDS * (self.model.d_model + len(self.train.class_names))
        return Layout.of(len(self.train), len(self.test), self.request.batch_size, tuple(solves), ratio)

    def job(self, memory: Memory | None = None) -> Job:
        """All that workers and the assembly need to know and agree on.

        Args:
            memory: of images that were hashed before.
        """
        model, request = self.model, self.request
        memory = memory or Memory()
        data = {"train": self.train.fingerprint(memory), "test": self.test.fingerprint(memory)}
        n_labels = len(self.train.class_names)
        n_classes = n_labels if self.match.how == "fit" else model.n_classes
        assert n_classes is not None  # labels were matched to them
        identity = Identity(
            request,
            fingerprint={**data, "weights": model.fingerprint()},
            clsinterp=version("clsinterp"),
            remote=model.server is not None,
        )
        facts = Facts(
            model=request.model,
            note=short_note(request.model),
            family=model.family.name,
            n_layers=model.n_layers,
            n_classes=n_classes,
            n_labels=n_labels,
            seed=request.seed,
            mode=request.mode,
            final_norm=request.final_norm if model.lens_norm is not None else None,
            data=request.data,
            head=self.match.how,
            group=request.group,
            swaps=request.swaps,
            cls_only=self.cls_only,
        )
        skipped = {"train": list(self.train.skipped), "test": list(self.test.skipped)}
        manifest = Manifest(
            checkpoint={
                "source": model.checkpoint.source,
                "revision": model.checkpoint.revision,
                "class": type(model._module).__name__,
                "head_is_own": model.checkpoint.head_is_own,
            },
            layers=self.layers,
            d_model=model.d_model,
            labels=self.match,
            class_names=self.train.class_names,
            counts=Counts(len(self.train), len(self.test), skipped),
            **self._where(),
            images={"train": self.train.hashed, "test": self.test.hashed},
            versions={"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        )
        return Job(identity, facts, self.unit_layout, manifest)

    def _where(self) -> dict[str, Any]:
        """Device and dtype of the model, and the server's part if it has one."""
        model = self.model
        if model.server is None:
            parameter = next(model._module.parameters())
            dtype = str(parameter.dtype).removeprefix("torch.")
            return {"device": str(parameter.device), "dtype": dtype, "remote": None}
        there = model.server_facts
        remote = {"host": model.server.url, "model_key": model.to_model_key(), "versions": there["versions"]}
        return {"device": there["device"], "dtype": there["dtype"], "remote": remote}


def _refuse_unfit(request: Request, model: VisionModel) -> None:
    family = model.family
    if not family.has_cls:
        raise RequestError(
            f"a {family.name} model has no CLS token to swap or probe; in Python, "
            'clsinterp.capture(model, pixels, layers, group="patches") gives patch tokens to probe.'
        )
    _layers(request, model)
    model.layout.index(request.group)
    if request.cls_only == "refit" and not family.other_readouts:
        raise RequestError(
            f"cls_only='refit' was given, but a {family.name} model reads {' and '.join(family.readouts)} only: "
            "there is no CLS read-out beside others to keep."
        )


def _layers(request: Request, model: VisionModel) -> tuple[int, ...]:
    layers = check_layers(range(model.n_layers) if request.layers is None else request.layers, model.n_layers)
    if not layers:
        raise RequestError("no layers were given; name some with layers=, or leave it out for all.")
    return layers


def _seed(request: Request, b: int, swap: int) -> tuple[int, ...]:
    return (request.seed, b, swap) if swap else (request.seed, b)


def _draw(request: Request, test: Split) -> list[list[Tensor]] | None:
    """The donors of every batch, all drawn first: a batch in which the mode cannot be had stops the run early."""
    if request.mode not in interventions.SWAPS:
        return None
    drawn = []
    for b, part in enumerate(torch.tensor(test.labels).split(request.batch_size)):
        try:
            swaps = range(request.swaps)
            drawn.append([interventions.donors(request.mode, part, _seed(request, b, k)) for k in swaps])
        except RequestError as error:
            raise RequestError(f"batch {b} ({len(part)} images) cannot be swapped: {error}") from error
    return drawn
