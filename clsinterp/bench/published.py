"""The note's own loop, stated anew, against what this package does for the same curves on the same images.

The loop is that of github.com/lrast/CLSTokenAnalysis at the time of the note of 2026-01-20, in our words: one pass over both
splits that stores the CLS token after every block; per layer a ridge probe by scikit-learn, its penalty from 15 draws of a
randomized search with 5 folds, and the model's classifier on the stored tokens, ranked by a full sort; then per layer one pass
over the test split with a forward hook that shuffles the CLS tokens, and one without. It draws fresh permutations, and has
no donor and no restoration curves, which ours has on top. Images are decoded before either side begins.
"""

import importlib.util
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clsinterp.bench.timing import Row, compare
from clsinterp.data.batches import batches
from clsinterp.data.sources import open_data
from clsinterp.errors import RequestError
from clsinterp.interventions import permute
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.capture import capture
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.vision_model import VisionModel

BATCH = 128


@dataclass
class Note:
    """A model with one read-out, images and labels of both splits, and what each side found.

    Attributes:
        found: side -> curve -> accuracy by layer.
    """

    model: VisionModel
    pixels: dict[str, Tensor]
    labels: dict[str, Tensor]
    n_classes: int
    found: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def of_zoo(cls, n: int) -> "Note":
        """`zoo/vit` on `n` images a split of the sample that ships."""
        model, pixels, labels = VisionModel("zoo/vit", device="cpu"), {}, {}
        for name, split in zip(("train", "test"), open_data("zoo", "train", "test", limit=n), strict=True):
            pixels[name] = torch.cat(list(batches(split, model.image_processor, BATCH, workers=0)))
            labels[name] = torch.tensor(split.labels)
        return cls(model, pixels, labels, len(split.class_names))

    def ours(self) -> None:
        """All curves of a run: one traced pass a split."""
        layers = range(self.model.n_layers)
        stats = RidgeStats.zeros(len(layers), self.model.d_model, self.n_classes)
        index = torch.arange(len(self.labels["train"]))
        for rows in index.split(BATCH):
            tokens, _ = capture(self.model, self.pixels["train"][rows], layers)
            stats.update(tokens, self.labels["train"][rows], rows)
        head, probes = Head.of(self.model.family, self.model.heads), solve(stats)
        readers = Readers(head, probes=probes, probed=tuple(layers), final_norm=False)  # the note's lens
        found: dict[str, list[Tensor]] = {}
        for b, rows in enumerate(torch.arange(len(self.labels["test"])).split(BATCH)):
            labels = self.labels["test"][rows]
            ranks = fork(self.model, self.pixels["test"][rows], labels, permute(len(rows), b), readers, layers=layers)
            for name, values in ranks.items():
                found.setdefault(name, []).append(values)
        self.found["ours"] = {
            curve: [_share(found[f"rank_{curve}_{layer:02d}"]) for layer in layers]
            for curve in ("probe", "lens", "shuffle")
        }

    def published(self) -> None:
        """The published loop."""
        import numpy as np
        from scipy.stats import expon
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import RandomizedSearchCV

        module = self.model._module
        blocks = list(module.get_submodule(self.model.family.blocks))
        stored = {split: stored_tokens(module, blocks, pixels) for split, pixels in self.pixels.items()}
        train, test = (self.labels[split] for split in ("train", "test"))
        signs = np.where(np.eye(self.n_classes)[train.numpy()] > 0, 1.0, -1.0)
        curves: dict[str, list[float]] = {"probe": [], "lens": [], "shuffle": []}
        for layer, block in enumerate(blocks):
            draws = {"alpha": expon(scale=100)}
            search = RandomizedSearchCV(
                Ridge(), draws, n_iter=15, cv=5, scoring="neg_mean_squared_error", random_state=0
            )
            search.fit(stored["train"][layer].numpy(), signs)
            answers = torch.from_numpy(search.predict(stored["test"][layer].numpy())).argmax(-1)
            curves["probe"].append(float((answers == test).float().mean()))
            with torch.no_grad():
                order = module.get_submodule("classifier")(stored["test"][layer]).argsort(-1, descending=True)
            curves["lens"].append(float((order[:, 0] == test).float().mean()))
            torch.argwhere(order == test[:, None])  # the rank of the label, for identifiability
            hook = block.register_forward_hook(shuffling)
            curves["shuffle"].append(accuracy(module, self.pixels["test"], test))
            hook.remove()
        accuracy(module, self.pixels["test"], test)
        self.found["published"] = curves

    def apart(self) -> dict[str, float]:
        """Curve -> the largest difference of accuracy between the sides, over layers."""
        sides = self.found["ours"], self.found["published"]
        return {name: max(abs(a - b) for a, b in zip(*(s[name] for s in sides), strict=True)) for name in sides[0]}


def _share(ranks: list[Tensor]) -> float:
    return float((torch.cat(ranks) == 0).float().mean())


@torch.no_grad()
def stored_tokens(module: nn.Module, blocks: list[nn.Module], pixels: Tensor) -> list[Tensor]:
    """The CLS token after each block, for all images: a tensor (image, d_model) per layer."""
    kept: list[list[Tensor]] = [[] for _ in blocks]

    def keeping(into: list[Tensor]):
        return lambda _module, _args, output: into.append(output[:, 0].clone())

    hooks = [block.register_forward_hook(keeping(into)) for block, into in zip(blocks, kept, strict=True)]
    for part in pixels.split(BATCH):
        module(part)
    for hook in hooks:
        hook.remove()
    return [torch.cat(tokens) for tokens in kept]


def shuffling(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    """A forward hook: every image gets the CLS token of another one, drawn anew for each batch."""
    shuffled = output.clone()
    shuffled[:, 0] = output[torch.randperm(len(output)), 0]
    return shuffled


@torch.no_grad()
def accuracy(module: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """The share of right answers of the output."""
    answers = [module(part).logits.argmax(-1) for part in pixels.split(BATCH)]
    return float((torch.cat(answers) == labels).float().mean())


def published_rows(quick: bool) -> list[Row]:
    """One read-out, probes included.

    Raises:
        RequestError: no scikit-learn.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise RequestError(
            "the note's loop fits its probes by scikit-learn, which is not here; pip install scikit-learn."
        )
    note = Note.of_zoo(500 if quick else 2000)
    n = len(note.labels["test"])
    row = compare(
        f"the note on zoo/vit, one read-out, probes included, {len(note.labels['train'])} train and {n} test images",
        "the published loop, stated anew (no donor and restoration curves)",
        ">= 1.7",
        note.ours,
        note.published,
        2 if quick else 5,
    )
    return [row]
