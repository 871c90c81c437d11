"""What a finished run says of itself: its ``run.json``."""

from dataclasses import dataclass
from typing import Any

from clsinterp.figures.facts import Facts
from clsinterp.runs.job import Identity, Manifest
from clsinterp.runs.verdicts import Onset
from clsinterp.shapes import misfit

CHOSEN_BY = "squared error, 5-fold cross-validation"


@dataclass(frozen=True)
class Report:
    """What a finished run says of itself.

    Attributes:
        facts: what tables and figures say of it.
        onsets: ``decodable_from`` and ``used_from``.
        identity: what was asked, of which images and weights.
        manifest: what it worked with.
        collision_rate: share of test images whose donor has the same label; None without donors.
        own_cls_rate: share of test images that got their own token; None without donors.
        computed_on: the kinds of processes that took part: ``device``, ``hardware``, ``threads``, ``torch``, ``processes``.
        seconds: by stage, summed over processes.
        alpha: the ridge penalty of each layer's probe, chosen by squared error.
        alpha_at_edge: layers whose penalty is the smallest or largest that was tried.
        files: a hash of every other file of the run folder, by name; none where an older version wrote it.
    """

    facts: Facts
    onsets: dict[str, Onset]
    identity: Identity
    manifest: Manifest
    collision_rate: float | None
    own_cls_rate: float | None
    computed_on: list[dict[str, Any]]
    seconds: dict[str, float]
    alpha: dict[int, float]
    alpha_at_edge: list[int]
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """One flat object: facts and manifest lie in it side by side."""
        return {
            **self.facts.to_json(),
            "onsets": {name: onset.to_json() for name, onset in self.onsets.items()},
            "identity": self.identity.to_json(),
            **self.manifest.to_json(),
            "collision_rate": self.collision_rate,
            "own_cls_rate": self.own_cls_rate,
            "computed_on": self.computed_on,
            "seconds": self.seconds,
            "alpha": {str(layer): alpha for layer, alpha in self.alpha.items()},
            "alpha_at_edge": self.alpha_at_edge,
            "alpha_chosen_by": CHOSEN_BY,
            "files": self.files,
        }

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Report":
        """The twin of `to_json`.

        Raises:
            KeyError: something is missing.
            ValueError: something is of another type.
        """
        plain = ("collision_rate", "own_cls_rate", "computed_on", "seconds", "alpha_at_edge")
        report = cls(
            facts=Facts.of_json(value),
            onsets={name: Onset.of_json(onset) for name, onset in value["onsets"].items()},
            identity=Identity.of_json(value["identity"]),
            manifest=Manifest.of_json(value),
            alpha={int(layer): alpha for layer, alpha in value["alpha"].items()},
            files=value.get("files", {}),
            **{key: value[key] for key in plain},
        )
        if wrong := misfit(report, cls, "the report"):
            raise ValueError(wrong)
        return report
