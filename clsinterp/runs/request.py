"""What a run is asked to do."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clsinterp.data.label_map import LabelMap, read_label_map
from clsinterp.errors import RequestError
from clsinterp.interventions import MODES
from clsinterp.models.prompts import prompts
from clsinterp.remote.server import Server
from clsinterp.runs.extras import checked
from clsinterp.runs.ranges import DEVICE_MAPS, refuse_outside
from clsinterp.runs.units import Shard

LISTS = ("layers", "alphas", "classes", "templates")
CLS_ONLY = ("mean", "zero", "refit")
Progress = Callable[[str, int, int], None]  # stage, images done, images in all


@dataclass(frozen=True)
class Request:
    """What a run is asked to do. Everything that shapes its numbers; how fast it goes is not part of it.

    Attributes:
        model: hub id, folder or ``zoo/NAME``.
        data: ``zoo``, folder, parquet or tar file, or hub id; splits and columns as in `clsinterp.data.sources.open_data`.
        batch_size: images per batch; CLS tokens are swapped within one.
        mode: ``permute`` (the note's), ``derange`` or ``cross_label`` swap tokens between images; ``mean``, ``zero``,
            ``noise`` and ``normal`` put something in their place, see `clsinterp.interventions`.
        group: whose tokens: ``cls``, ``registers``, ``distill``, ``patches``, or several joined by ``+``.
        swaps: permutations (or draws of noise) per batch; each image is measured under every one.
        layers: layers to swap, probe and read at; None is all; -1 is before block 0.
        final_norm: whether the lens applies the final norm.
        head: ``auto``, ``own``, ``fit``, or ``text``: class names read by the checkpoint's own text tower.
        classes: under ``text``, a name for each class of the data, in its order; None is the data's own names.
        templates: under ``text``, sentences with ``{}`` for the name; None is `clsinterp.models.prompts.TEMPLATES`.
        label_map: label of the data -> the model's class, or a file that says so; kept as its content.
        cls_only: what becomes of the other read-outs on the CLS-only curves: ``mean`` holds them at their mean over the train
            images, ``zero`` at zero (the note's), ``refit`` fits a CLS-only head.
        alphas: penalties of the probes to choose from, as multiples of the mean eigenvalue of their Gram matrix; None is
            `clsinterp.probing.ridge.ALPHAS`.
        seed: of the choice of images, their order and the swaps.
        image_size: side in pixels that images are brought to; None is the checkpoint's own.
        limit: first N train and first N test images only.
        on_bad_image: ``error``, or ``skip`` to leave unreadable images out and count them.
        config: config fields changed before the model is built.
        also: what is measured beside the note: names in `clsinterp.runs.extras.EXTRAS`; kept sorted.
    """

    model: str
    data: str
    train_split: str | None = None
    test_split: str | None = None
    train_per_class: int | None = None
    test_per_class: int | None = None
    batch_size: int = 128
    mode: str = "permute"
    group: str = "cls"
    swaps: int = 1
    layers: tuple[int, ...] | None = None
    final_norm: bool = True
    head: str = "auto"
    classes: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    label_map: LabelMap | str | Path | None = None
    cls_only: str = "mean"
    alphas: tuple[float, ...] | None = None
    seed: int = 0
    limit: int | None = None
    dtype: str = "auto"
    revision: str | None = None
    allow_pickle: bool = False
    on_bad_image: str = "error"
    image_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.label_map is not None:  # its content is part of the run's identity, and workers elsewhere lack the file
            object.__setattr__(self, "label_map", read_label_map(self.label_map))
        object.__setattr__(self, "also", checked(self.also))

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Request":
        """The request written as JSON: an ``identity`` in a run folder, or what `dataclasses.asdict` gave."""
        fields = {k: v for k, v in value.items() if k in cls.__dataclass_fields__}
        lists = {key: None if fields.get(key) is None else tuple(fields[key]) for key in LISTS}
        return cls(**fields | lists | {"also": tuple(fields.get("also", ()))})

    def check(self) -> None:
        """Refuse what can be refused before anything is loaded.

        Raises:
            RequestError: with what was given and what is expected.
        """
        if self.batch_size < 2:
            raise RequestError(f"a batch size of {self.batch_size} was given; swapping needs at least 2.")
        for name, allowed in (
            ("mode", MODES),
            ("head", ("auto", "own", "fit", "text")),
            ("cls_only", CLS_ONLY),
            ("on_bad_image", ("error", "skip")),
        ):
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"{name}={getattr(self, name)!r} was given; one of {', '.join(allowed)} is expected."
                )
        self._check_text()
        names = ("batch_size", "train_per_class", "test_per_class", "limit", "swaps", "seed", "image_size")
        refuse_outside(**{name: getattr(self, name) for name in names})
        if self.alphas is not None and not (self.alphas and all(0 < a < math.inf for a in self.alphas)):
            raise RequestError(f"alphas={list(self.alphas)} was given; positive numbers are expected.")
        if self.alphas is not None and list(self.alphas) != sorted(set(self.alphas)):
            raise RequestError(f"alphas={list(self.alphas)} was given; growing numbers are expected.")

    def _check_text(self) -> None:
        """Refuse what only goes with a head of class names, or never does."""
        if self.head != "text" and (self.classes is not None or self.templates is not None):
            given = "classes" if self.classes is not None else "templates"
            raise RequestError(f'{given} was given with head={self.head!r}; it is for head="text".')
        if self.head == "text":
            if self.label_map is not None:
                raise RequestError(
                    'label_map was given with head="text", whose classes are those of the data; use classes=.'
                )
            prompts(("a",) if self.classes is None else self.classes, self.templates)


@dataclass(frozen=True)
class Resources:
    """What a worker computes with. How fast a run goes depends on it, and nothing else.

    Attributes:
        device: where the model runs; ``auto`` takes CUDA, then MPS, then the CPU.
        device_map: passed to transformers: ``auto`` spreads one model over all GPUs (needs accelerate).
        memory_gb: budget for the fork's activations; None is half of what is free.
        sharers: workers that share that memory.
        workers: processes that decode images; None is by the number of cores.
        threads: torch's threads; None leaves them as they are.
        server: an NDIF server that has the model; batches go there, ranks come down. None is this machine.
    """

    device: str = "auto"
    device_map: str | None = None
    memory_gb: float | None = None
    sharers: int = 1
    workers: int | None = None
    threads: int | None = None
    server: Server | None = None

    def check(self) -> None:
        """Refuse what can be refused before anything is loaded.

        Raises:
            RequestError: with what was given and what is expected.
        """
        refuse_outside(**{name: getattr(self, name) for name in ("memory_gb", "sharers", "workers", "threads")})
        if self.device_map is not None and self.device_map not in DEVICE_MAPS:
            raise RequestError(
                f"device_map={self.device_map!r} was given; one of {', '.join(DEVICE_MAPS)} is expected."
            )


@dataclass(frozen=True)
class Scope:
    """How much of a run to do.

    Attributes:
        shard: one part of it; None is all.
        stage: ``all``, or ``train`` to end after the train pass.
        wait: minutes a shard waits for the train parts of others before it gives up.
    """

    shard: Shard | None = None
    stage: str = "all"
    wait: float = 0.0

    def check(self) -> None:
        """Refuse what can be refused before anything is loaded.

        Raises:
            RequestError: with what was given and what is expected.
        """
        refuse_outside(wait=self.wait)
        if self.stage not in ("all", "train"):
            raise RequestError(f"stage={self.stage!r} was given; all or train is expected.")


def default_out(model: str) -> Path:
    """Where a run goes when no folder is given: ``runs/`` and the model's name."""
    return Path("runs") / re.sub(r"[^\w.-]+", "-", model.strip("./~")).strip("-")
