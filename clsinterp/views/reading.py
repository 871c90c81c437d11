"""What the classifier reads in one image: the data behind a lens view."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from clsinterp.views.intervention import Intervention


@dataclass(frozen=True, repr=False)
class Reading:
    """What the classifier reads in one image.

    Attributes:
        logits: what the lens gives, layer by layer, token by token (prefix tokens first, then patches row by row).
        output: the model's own logits; with ``cls_only``, those of the CLS read-out alone.
        attention: how much the CLS token attends to each token; None without a CLS token.
        similarity: cosine similarity of each token to the CLS token in the residual stream; None without a CLS token.
        tokens, groups: each token's name, and the group it belongs to.
        grid: rows and columns of patches.
        class_names: of the classifier.
        image: as the model sees it: resized and cropped by its processor.
        model, family: what was looked into.
        read_by: token group -> the read-out whose part of the classifier the lens applies to it
            (`clsinterp.probing.lens.lens_readout`). Where it is not the group's own, as with ``patch_mean`` on the CLS token of
            CLIP or of BEiT with mean pooling, the model itself never reads such a token.
        intervention: what was done; None for the intact forward.
    """

    logits: Float[Tensor, "layer token classes"]
    output: Float[Tensor, " classes"]
    attention: Float[Tensor, "layer head token"] | None
    similarity: Float[Tensor, "layer token"] | None
    tokens: tuple[str, ...]
    groups: tuple[str, ...]
    grid: tuple[int, int]
    class_names: tuple[str, ...]
    image: Image.Image
    model: str
    family: str
    read_by: dict[str, str]
    intervention: Intervention | None = None

    def __repr__(self) -> str:
        lines = [
            f"{type(self).__name__}({self.model[-60:]}: {self.n_layers} layers, {len(self.tokens)} tokens, "
            f"{len(self.class_names)} classes)",
            f"output: {self.answer(40)}",
            *([self.intervention.describe()] if self.intervention else []),
        ]
        return "\n  ".join(lines)

    def answer(self, longest: int = 60) -> str:
        """The output's three most probable classes in words, names cut at `longest`, and among how many they are."""
        probability, index = (x.tolist() for x in self.output.softmax(-1).topk(min(3, len(self.output))))
        names = [self.class_names[c] for c in index]
        cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
        first = (f"{name} {100 * p:.1f}%" for name, p in zip(cut, probability, strict=True))
        return f"{', '.join(first)} (of {len(self.class_names)} classes)"

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.logits)

    @property
    def n_prefix(self) -> int:
        """Tokens before the first patch."""
        return len(self.tokens) - self.grid[0] * self.grid[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, for caches."""
        return sum(t.nbytes for t in (self.logits, self.output, self.attention, self.similarity) if t is not None)

    @property
    def probabilities(self) -> Float[Tensor, "layer token classes"]:
        """Softmax of the lens logits."""
        return self.logits.softmax(-1)

    def top(self, k: int = 5) -> tuple[Float[Tensor, "layer token k"], Int[Tensor, "layer token k"]]:
        """Probabilities and classes of the `k` most probable classes of every token."""
        found = self.probabilities.topk(min(k, self.logits.shape[-1]), dim=-1)
        return found.values, found.indices

    def trajectory(self) -> Float[Tensor, "layer classes"]:
        """Probabilities read from the CLS token layer by layer; without one, from the patches on average."""
        if "cls" in self.groups:
            return self.logits[:, self.groups.index("cls")].softmax(-1)
        return self.probabilities[:, self.n_prefix :].mean(1)
