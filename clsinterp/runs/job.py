"""What the processes that work on a run agree on: a file among its parts, and most of its ``run.json``.

Each class writes itself with `to_json` and is read back with `of_json`, which passes over keys that are not its own, so
that several can lie in one JSON object, and raises KeyError where one is missing. What is read is checked against the types.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from clsinterp.data.labels import LabelMatch
from clsinterp.figures.facts import Facts
from clsinterp.runs.request import Request
from clsinterp.runs.units import Layout
from clsinterp.shapes import misfit


@dataclass(frozen=True)
class Identity:
    """What must be the same for a process to join a run.

    Attributes:
        request: what was asked.
        fingerprint: of the train images, the test images and the weights.
        clsinterp: the package's version.
        remote: whether a server has the model.
    """

    request: Request
    fingerprint: dict[str, str]
    clsinterp: str
    remote: bool

    def to_json(self) -> dict[str, Any]:
        """The request's fields, then the others."""
        others = {"fingerprint": self.fingerprint, "clsinterp": self.clsinterp, "remote": self.remote}
        return {**asdict(self.request), **others}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Identity":
        """The twin of `to_json`."""
        return cls(Request.of_json(value), value["fingerprint"], value["clsinterp"], value["remote"])


@dataclass(frozen=True)
class Counts:
    """How many images a run has.

    Attributes:
        train, test: images.
        skipped: names of the unreadable ones that were left out, by split.
    """

    train: int
    test: int
    skipped: dict[str, list[str]]


@dataclass(frozen=True)
class Manifest:
    """What a run worked with, as far as it is known before anything was computed.

    Attributes:
        checkpoint: its ``source``, ``revision`` and ``class``, and whether ``head_is_own``.
        layers: swapped, probed and read, sorted.
        d_model: width of the residual stream.
        labels: how labels of the data became classes of the classifier.
        class_names: of the data.
        counts: of images.
        device, dtype: of the model's weights.
        images: what the fingerprints of the train and the test images are of: ``contents``, or ``sizes and .. contents``.
        remote: of a server that has the model: ``host``, ``model_key``, ``versions``, and traffic when the run is done.
        versions: of Python and of packages.
    """

    checkpoint: dict[str, Any]
    layers: tuple[int, ...]
    d_model: int
    labels: LabelMatch
    class_names: list[str]
    counts: Counts
    device: str
    dtype: str
    remote: dict[str, Any] | None
    versions: dict[str, str]
    images: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain values, in the order of the attributes; no ``remote`` for a model on this machine."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("remote", None)}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Manifest":
        """The twin of `to_json`."""
        given = {"remote": None, "images": {}, **value}  # older runs hashed names only
        plain = cls(**{f.name: given[f.name] for f in fields(cls)})
        labels = LabelMatch(**value["labels"] | {"classes": tuple(value["labels"]["classes"])})
        return replace(plain, layers=tuple(value["layers"]), labels=labels, counts=Counts(**value["counts"]))


@dataclass(frozen=True)
class Job:
    """All that workers and the assembly of a run need to know.

    Attributes:
        identity: what must be the same to join.
        facts: what tables and figures say of the run.
        layout: how it is cut into units.
        manifest: the rest of ``run.json`` that is known beforehand.
    """

    identity: Identity
    facts: Facts
    layout: Layout
    manifest: Manifest

    def to_json(self) -> dict[str, Any]:
        """One object with a key for each attribute."""
        parts = {"identity": self.identity.to_json(), "facts": self.facts.to_json()}
        return {**parts, "layout": asdict(self.layout), "manifest": self.manifest.to_json()}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Job":
        """The twin of `to_json`."""
        job = cls(
            Identity.of_json(value["identity"]),
            Facts.of_json(value["facts"]),
            Layout.of_json(value["layout"]),
            Manifest.of_json(value["manifest"]),
        )
        if wrong := misfit(job, cls, "the job") or _disagreement(job):
            raise ValueError(wrong)
        return job


def _disagreement(job: Job) -> str | None:
    """What two parts of `job` say differently of the same thing."""
    layout, counts, labels = job.layout, job.manifest.counts, job.manifest.labels
    said = {
        "batch_size": (layout.batch_size, job.identity.request.batch_size),
        "train images": (layout.n_train, counts.train),
        "test images": (layout.n_test, counts.test),
        "classes": (len(labels.classes), len(job.manifest.class_names)),
        "probes": (sum(name.startswith("probe") for name in layout.solves), len(job.manifest.layers)),
    }
    if min(layout.batch_size, layout.n_train, layout.n_test, layout.train_step, layout.test_step) < 1:
        return "the layout has a count below 1"
    return next((f"{what} are {a} and {b}" for what, (a, b) in said.items() if a != b), None)
