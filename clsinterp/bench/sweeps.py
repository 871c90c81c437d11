"""The fork against the ways to draw the same curves without it."""

from dataclasses import dataclass

import nnsight
import torch
from torch import Tensor

from clsinterp.bench.models import BASE, N_CLASSES, N_LAYERS, ZOO, Size, random_model, random_pixels
from clsinterp.bench.timing import Row, compare
from clsinterp.checks.plain_sweep import plain_forward, sweep
from clsinterp.interventions import permute
from clsinterp.probing.head import Head
from clsinterp.probing.metrics import ranks
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.batching import images_per_piece
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.vision_model import VisionModel

LAYERS = tuple(range(N_LAYERS))


@dataclass(frozen=True)
class Setting:
    """A model, a batch, donors, and everything that reads."""

    model: VisionModel
    pixels: Tensor
    targets: Tensor
    donors: Tensor
    readers: Readers

    @classmethod
    def of(cls, family: str, size: Size) -> "Setting":
        """A random one."""
        model, n = random_model(family, size), size.images
        stats = RidgeStats.zeros(N_LAYERS, size.width, N_CLASSES)
        examples = torch.arange(2 * N_CLASSES)
        stats.update(torch.randn(N_LAYERS, len(examples), size.width), examples % N_CLASSES, examples)
        readers = Readers(Head.of(model.family, model.heads), probes=solve(stats), probed=LAYERS)
        return cls(model, random_pixels(size), torch.arange(n) % N_CLASSES, permute(n, 0), readers)

    def fork(self) -> dict[str, Tensor]:
        """Ours: every curve from one trace."""
        return fork(self.model, self.pixels, self.targets, self.donors, self.readers, layers=LAYERS)

    def best_loop(self) -> dict[str, Tensor]:
        """One hooked forward per layer that serves every curve, in plain torch."""
        return sweep(self.model, self.pixels, self.targets, self.donors, self.readers, layers=LAYERS)

    def traced_loop(self) -> None:
        """The same loop as one nnsight trace per layer."""
        for layer in (None, *LAYERS):
            with torch.inference_mode(), self.model.trace(self.pixels):
                tokens = []
                for i in LAYERS:
                    if i == layer:
                        self.model.blocks[i].cls = self.model.blocks[i].cls[self.donors]
                    tokens.append(self.model.blocks[i].cls.clone())
                features = self.model.readout.clone()
                logits = self.model.logits.clone()
                nnsight.save(tokens)
                nnsight.save(features)
                nnsight.save(logits)
            ranks(logits, self.targets)
            if self.model.family.other_readouts:
                ranks(self.readers.head.only("cls", features), self.targets)
            for i in LAYERS[layer or 0 :]:
                ranks(self.readers.probes.scores(tokens[i], i), self.targets)  # type: ignore[union-attr]

    def pass_per_curve(self) -> None:
        """A pass for each curve and layer: shuffle, CLS-only, restoration; one for the probes and the lens; intact ones."""

        def swap(tokens: Tensor) -> Tensor:
            return tokens[self.donors]

        curves = 2 + bool(self.model.family.other_readouts)  # shuffle, restoration, CLS-only
        for _ in range(curves):
            plain_forward(self.model, self.pixels)
            for layer in LAYERS:
                plain_forward(self.model, self.pixels, layer, 0, swap)

    def pass_per_readout(self) -> None:
        """A pass for each read-out and layer, and one for the activations that probes and lens read."""
        plain_forward(self.model, self.pixels)
        for _ in self.model.family.readouts:
            plain_forward(self.model, self.pixels)
            for layer in LAYERS:
                plain_forward(self.model, self.pixels, layer, 0, lambda tokens: tokens[self.donors])

    def blocks_alone(self) -> None:
        """Every block on the rows it gets in the fork, a cacheful at a time, and nothing else."""
        blocks = self.model._module.get_submodule(self.model.family.blocks)
        side, patch = self.pixels.shape[-1], self.model.sizes.patch[0]
        n_tokens = self.model.layout.n_prefix + (side // patch) ** 2
        h = torch.randn(N_LAYERS * len(self.pixels), n_tokens, self.model.d_model)
        with torch.inference_mode():
            for i, block in enumerate(blocks, start=1):
                for piece in h[: i * len(self.pixels)].split(images_per_piece(n_tokens)):
                    block(piece)


def fork_rows(quick: bool) -> list[Row]:
    """All curves of a batch; the best loop is one forward per layer that serves every curve."""
    repeats = 3 if quick else 7
    dinov2 = Setting.of("dinov2", ZOO)
    name = f"all curves, dinov2 {ZOO}"
    rows = [
        compare(name, "a pass per curve and layer", ">= 5", dinov2.fork, dinov2.pass_per_curve, repeats),
        compare(name, "a pass per layer and read-out", ">= 3.5", dinov2.fork, dinov2.pass_per_readout, repeats),
        compare(name, "best loop, plain torch", ">= 1.8", dinov2.fork, dinov2.best_loop, repeats),
        compare(name, "best loop, a trace per layer", ">= 1.8", dinov2.fork, dinov2.traced_loop, repeats),
        compare(name, "its 78 blocks alone", ">= 0.9", dinov2.fork, dinov2.blocks_alone, repeats),
    ]
    if not quick:
        for family in ("deit", "vit"):
            one = Setting.of(family, ZOO)
            rows.append(
                compare(
                    f"all curves, {family} {ZOO}", "best loop, plain torch", ">= 1.7", one.fork, one.best_loop, repeats
                )
            )
    base = Setting.of("vit", BASE)
    name = f"all curves, vit {BASE}"
    rows.append(compare(name, "its 78 blocks alone", ">= 0.9", base.fork, base.blocks_alone, 2 if quick else 5))
    if not quick:
        rows.append(compare(name, "best loop, plain torch", ">= 1.8", base.fork, base.best_loop, 3))
    return rows
