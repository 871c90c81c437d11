"""What a worker elsewhere needs to know, and how far it is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clsinterp.runs.folder import RunFolder
from clsinterp.runs.request import Progress, Request, Scope
from clsinterp.runs.units import Layout, Shard

RETRIES = 3  # times a worker that died is started again
LOOK = 0.2  # seconds between looks at the workers


@dataclass(frozen=True)
class Task:
    """What a worker in another process needs to know: the request, the run folder (absolute), the scope."""

    request: Request
    out: str
    scope: Scope

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "Task":
        """From what `to_json` gave."""
        shard = value["scope"]["shard"]
        scope = Scope(**value["scope"] | {"shard": shard and Shard(**shard)})
        return cls(Request.of_json(value["request"]), value["out"], scope)


def report(task: Task, layout: Layout, progress: Progress) -> None:
    """Pass on how far the run folder is; nothing if its parts are already gone."""
    folder = RunFolder(Path(task.out))
    for stage in ("train", "test"):
        units = layout.units(stage, task.scope.shard)
        try:
            missing = folder.missing(layout, units)
        except FileNotFoundError:
            missing = []
        if stage == "train" and (folder.path / "probes.safetensors").exists():
            missing = []
        if stage == "train" or len(missing) < len(units):
            progress(stage, layout.n_images(units) - layout.n_images(missing), layout.n_images(units))
