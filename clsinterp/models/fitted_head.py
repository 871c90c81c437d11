"""A classifier that a run fitted, put where the checkpoint has none or another."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clsinterp.errors import RequestError
from clsinterp.models.checkpoint import Checkpoint


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """The ridge head of a finished run.

    Attributes:
        run: the run folder.
        weights, biases: one map on all read-outs side by side, or one per read-out (DeiT).
        class_names: of the data it was fitted on.
        image_size: the side in pixels it was fitted at; None is the checkpoint's own.
    """

    run: Path
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    class_names: list[str]
    image_size: int | None

    @classmethod
    def read(cls, run: str | Path, source: str) -> "FittedHead":
        """The head of `run`, which must be of the checkpoint `source`.

        Raises:
            RequestError: no finished run, one of another checkpoint, or one that used the checkpoint's own classifier.
        """
        run = Path(run)
        try:  # only this file of the folder matters here
            facts = json.loads((run / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise RequestError(f"{run} is not a finished run folder (run.json is expected).") from error
        if facts["model"] != source:
            raise RequestError(f"{run} is a run of {facts['model']}; a run of {source} is expected.")
        if facts["head"] != "fit":
            raise RequestError(f"{run} used the classifier of {source} itself; load the model without a fitted one.")
        tensors = load_file(run / "probes.safetensors")
        weights, biases = tuple(tensors["head.weight"]), tuple(tensors["head.bias"])
        return cls(run, weights, biases, facts["class_names"], facts["identity"]["image_size"])

    def put_into(self, checkpoint: Checkpoint) -> Checkpoint:
        """`checkpoint` with this classifier as its own.

        Raises:
            RequestError: the family has no place for one.
        """
        family, module = checkpoint.family, checkpoint.module
        if not family.heads:
            raise RequestError(
                f"a {family.name} checkpoint is loaded as {family.hf_class}, which has no place for the head of {self.run}."
            )
        like = next(module.parameters())
        for path, weight, bias in zip(family.heads, self.weights, self.biases, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[0], device=like.device, dtype=like.dtype)
            with torch.no_grad():
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)
            module.set_submodule(path, linear)
        return dataclasses.replace(
            checkpoint, module=module.eval(), head_is_own=True, class_names=list(self.class_names)
        )
