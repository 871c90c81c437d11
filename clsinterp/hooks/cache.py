"""ActivationCache: activations by hook name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor

from clsinterp import files
from clsinterp.errors import RequestError
from clsinterp.hooks.decomposition import Decomposition
from clsinterp.hooks.shorthand import Key, full_name

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


class ActivationCache(Decomposition):
    """Activations of one forward, by hook name or shorthand: ``cache["resid_post", 3]``, ``cache["pattern", -1]``,
    ``cache["scale", 3, "ln1"]``, ``cache["embed"]``.

    Args:
        activations: hook name -> tensor.
        model: the model they come from; its weights are needed to take the residual stream apart.
        has_batch_dim: whether the first axis is the batch.
        grads: hook name -> gradient.
    """

    def __init__(
        self,
        activations: dict[str, Tensor],
        model: "Traced",
        has_batch_dim: bool = True,
        grads: dict[str, Tensor] | None = None,
    ) -> None:
        self.activations, self.model, self.has_batch_dim, self.grads = activations, model, has_batch_dim, grads or {}

    # -- mapping ---------------------------------------------------------------

    def name(self, key: Key) -> str:
        """The full hook name that `key` stands for."""
        return key if isinstance(key, str) and key in self.activations else full_name(key, self.model.n_layers)

    def __repr__(self) -> str:
        sizes = [f"{name} {tuple(t.shape)}" for name, t in list(self.activations.items())[:3]]
        megabytes = sum(t.nbytes for t in self.activations.values()) / 1e6
        grads = f", {len(self.grads)} gradients" if self.grads else ""
        lines = [f"ActivationCache({len(self)} activations{grads}, {megabytes:.1f} MB)", *sizes]
        return "\n  ".join([*lines, ".."] if len(self) > len(sizes) else lines)

    def __getitem__(self, key: Key) -> Tensor:
        name = self.name(key)
        if name not in self.activations:
            some = ", ".join(list(self.activations)[:4])
            raise KeyError(
                f"{name} is not in this cache of {len(self.activations)} activations ({some}, ..); ask for it in names_filter"
            )
        return self.activations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def __contains__(self, key: object) -> bool:
        return self.name(key) in self.activations if isinstance(key, (str, tuple)) else False

    def grad(self, key: Key) -> Tensor:
        """Gradient at a hook name.

        Raises:
            KeyError: it was not asked for with ``incl_bwd``.
        """
        name = self.name(key)
        if name not in self.grads:
            raise KeyError(
                f"no gradient at {name}; run_with_cache(.., incl_bwd=function of the logits) keeps gradients"
            )
        return self.grads[name]

    def to(self, device: str | torch.device) -> "ActivationCache":
        """The same cache with its tensors on `device`."""
        moved, grads = ({n: t.to(device) for n, t in x.items()} for x in (self.activations, self.grads))
        return ActivationCache(moved, self.model, self.has_batch_dim, grads)

    def remove_batch_dim(self) -> "ActivationCache":
        """The cache of a single image without its batch axis.

        Raises:
            RequestError: it holds several images.
        """
        if not self.has_batch_dim:
            return self
        if any(len(t) != 1 for t in self.activations.values()):
            raise RequestError("the batch axis can be removed only from a cache of one image.")
        flat, grads = ({n: t[0] for n, t in x.items()} for x in (self.activations, self.grads))
        return ActivationCache(flat, self.model, False, grads)

    def save(self, path: str | Path) -> None:
        """Write activations and gradients as safetensors."""
        # Clones, since one tensor may stand under two names (a block's output is the next one's input).
        tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in self.activations.items()}
        tensors |= {f"grad:{n}": t.contiguous() for n, t in self.grads.items()}
        metadata = {"has_batch_dim": json.dumps(self.has_batch_dim)}
        files.write(Path(path), lambda p: files.save_tensors(tensors, p, metadata))

    @classmethod
    def load(cls, path: str | Path, model: "Traced") -> "ActivationCache":
        """Read what `save` wrote; `model` must be the one the activations came from."""
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            has_batch_dim = json.loads(file.metadata()["has_batch_dim"])
        grads = {n.removeprefix("grad:"): t for n, t in tensors.items() if n.startswith("grad:")}
        return cls({n: t for n, t in tensors.items() if not n.startswith("grad:")}, model, has_batch_dim, grads)
