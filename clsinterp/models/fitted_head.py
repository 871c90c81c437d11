"""A classifier that was fitted here, put where the checkpoint has none or another; saved, and loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import Tensor

from clsinterp import files
from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint
from clsinterp.models.classified import classified, linear
from clsinterp.models.shipped_head import shipped_head
from clsinterp.models.tokens import TokenLayout
from clsinterp.shapes import misfit

FACTS = {"model": str, "head": str, "class_names": list[str], "identity": {"image_size": int | None}}  # of run.json
SAID = {"class_names": list[str], "readouts": list[str], "source": str, "image_size": int | None}  # of a saved head


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A ridge classifier on the read-outs of a checkpoint.

    Attributes:
        weights, biases: one map on all read-outs side by side, or one per read-out (DeiT).
        class_names: of the data it was fitted on.
        readouts: what it reads, in order.
        source: the checkpoint it was fitted on, as it was asked for.
        image_size: the side in pixels it was fitted at; None is the checkpoint's own.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    class_names: list[str]
    readouts: tuple[str, ...]
    source: str
    image_size: int | None

    def save(self, path: str | Path) -> None:
        """Write weights as safetensors; everything else is in the file's metadata.

        Args:
            path: such as ``head.safetensors``.

        Raises:
            RunError: the place cannot be written.
        """
        maps = {"weight": self.weights, "bias": self.biases}
        tensors = {f"{kind}.{i}": t.contiguous() for kind, parts in maps.items() for i, t in enumerate(parts)}
        said = {key: json.dumps(getattr(self, key)) for key in SAID}
        files.write(Path(path), lambda to: files.save_tensors(tensors, to, said))

    @classmethod
    def load(cls, path: str | Path) -> FittedHead:
        """Read what `save` wrote.

        Raises:
            RequestError: no such file, a damaged one, or another kind of file.
        """
        path = Path(path)
        try:
            with files.reading(path, "Save the head again; FittedHead.save wrote such files."):
                tensors, metadata = files.read_tensors(path)
                said = {key: json.loads(metadata[key]) for key in SAID}
                if wrong := misfit(said, SAID, "it"):
                    raise ValueError(wrong)
                n = len(tensors) // 2
                weights, biases = (tuple(tensors[f"{kind}.{i}"] for i in range(n)) for kind in ("weight", "bias"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RequestError(f"{path} is not there; a file that FittedHead.save wrote is expected.") from error
        return cls(weights, biases, **(said | {"readouts": tuple(said["readouts"])}))

    @classmethod
    def of_run(cls, run: str | Path) -> FittedHead:
        """The head of a finished run.

        Raises:
            RequestError: no finished run, or one that used the checkpoint's own classifier.
        """
        run = Path(run)
        again = "clsinterp run with the same arguments and --resume makes it again."
        try:  # only these files of the folder matter here
            with files.reading(run / "run.json", f"So {run} is not a finished run folder; give another."):
                facts = files.read_json(run / "run.json", FACTS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RequestError(
                f"{run} is not a finished run folder (run.json is expected), nor a head that was saved."
            ) from error
        if facts["head"] != "fit":
            raise RequestError(
                f"{run} used the classifier of {facts['model']} itself; load the model without a fitted one."
            )
        path, wanted = run / "probes.safetensors", facts.get("files", {}).get("probes.safetensors")
        try:
            with files.reading(path, again):
                if wanted not in (None, files.file_hash(path)):
                    raise ValueError("it is not the file that the run wrote")
                tensors, _ = files.read_tensors(path)
                weights, biases = tuple(tensors["head.weight"]), tuple(tensors["head.bias"])
                if {len(t) for t in (*weights, *biases)} != {len(facts["class_names"])}:
                    raise ValueError("it has not as many classes as run.json names")
        except FileNotFoundError as error:
            raise RequestError(f"{path} is missing; {again}") from error
        size = facts["identity"]["image_size"]
        return cls(weights, biases, facts["class_names"], tuple(facts.get("readouts", ())), facts["model"], size)

    @classmethod
    def read(cls, given: str | Path, source: str) -> FittedHead:
        """The head of a run folder, of a file that `save` wrote, or the one that ships for ``zoo/NAME``, for `source`.

        Raises:
            RequestError: as `of_run` and `load`, or a head of another checkpoint.
        """
        file = Path(given) if Path(given).exists() else shipped_head(str(given)) or Path(given)
        head = cls.load(file) if file.is_file() else cls.of_run(file)
        if head.source != source:
            kind = "head" if file.is_file() else "run"
            raise RequestError(f"{given} is a {kind} of {head.source}; a {kind} of {source} is expected.")
        return head

    def put_into(self, checkpoint: Checkpoint) -> Checkpoint:
        """`checkpoint` with this classifier as its own; the module is changed where it has a classifier already.

        Raises:
            RequestError: the read-outs are others than those of the checkpoint.
        """
        family, module = checkpoint.family, checkpoint.module
        wanted = len(family.readouts) * checkpoint.sizes.d_model
        if (read := sum(w.shape[1] for w in self.weights)) != wanted or self.readouts not in ((), family.readouts):
            raise RequestError(
                f"the head reads {read} features ({', '.join(self.readouts)}); {wanted} ({', '.join(family.readouts)}) are "
                f"expected of this {family.name} model. Fit one with model.fit_head(data)."
            )
        layout = TokenLayout.of(family.name, checkpoint.sizes.prefix)
        if family.heads:
            for path, weight, bias in zip(family.heads, self.weights, self.biases, strict=True):
                module.set_submodule(path, linear(weight, bias, next(module.parameters())))
        elif len(self.weights) == 1:
            module, family = classified(module, self.weights[0], self.biases[0], family, layout)
        else:
            raise RequestError(
                f"the head has a map for each read-out, but this {family.name} model has no classifiers."
            )
        return dataclasses.replace(
            checkpoint,
            module=module.eval(),
            family=family,
            head_is_own=True,
            head_from="fitted",
            class_names=list(self.class_names),
        )
