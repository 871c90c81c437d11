"""What a run can measure beside the note (``--also NAME,NAME``): edits of the test images, and what the edits need.

An entry of `EXTRAS` is all that such a measurement is to a run. Its fits are units of the stage ``solve``, made from the ridge
statistics that are there, and lie in ``probes.safetensors``; its edits ride in the test pass, and each gives a rank and an
answer per image, named by the curve and the layer in the grammar of `clsinterp.sweeps.columns`; probes may read their tokens on
the way, a rank each. What it measures hangs on no swap, so with several swaps an image has it once, repeated. Its figure is one
of `clsinterp.figures.also`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.layers import not_finite
from clsinterp.models.tokens import TokenLayout
from clsinterp.probing.ridge import Ridge, RidgeStats
from clsinterp.sweeps.answers import Answers, Reading
from clsinterp.sweeps.columns import PROBED_BESIDE, column
from clsinterp.sweeps.erase import erasures, fit_eraser, readings
from clsinterp.sweeps.knock import knock_outs, knock_outs_of
from clsinterp.sweeps.plan import block_passes
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import MOST, Edit, variants
from clsinterp.vision_model import VisionModel

Place = tuple[str, int]  # curve and layer: the column in which what comes of an edit stands
Fitted = Mapping[str, Tensor]  # of one extra: what `fit` gave for each layer, stacked in the order of the layers


@dataclass(frozen=True)
class Extra:
    """A measurement beside the note.

    Attributes:
        edits: (model, layers asked for, what was fitted) -> the edits, by where their column stands.
        rides: (tokens, blocks, layers asked for) -> edits at the same layers and in the same blocks, of which it can be counted,
            before there is a model, through how many blocks they go.
        fit: (statistics of the CLS token at one layer, as a `RidgeStats` of one; penalties that probes choose among) ->
            tensors to keep; None: nothing is fitted.
        reads: (layers asked for, what was fitted, probes of intact tokens at these layers) -> what reads the tokens of the
            edited copies, by column; None: nothing does.
        regressions: fitted by `fit` at each layer.
        probed: the curves of `reads`.
    """

    edits: Callable[[VisionModel, Sequence[int], Fitted], dict[Place, Edit]]
    rides: Callable[[TokenLayout, int, Sequence[int]], list[Edit]]
    fit: Callable[[RidgeStats, tuple[float, ...]], dict[str, Tensor]] | None = None
    reads: Callable[[Sequence[int], Fitted, Ridge], dict[str, Reading]] | None = None
    regressions: int = 0
    probed: tuple[str, ...] = ()

    def block_passes(self, layout: TokenLayout, n_layers: int, layers: Sequence[int]) -> int:
        """Through how many blocks an image goes for it in the test pass of a model with these tokens and blocks."""
        edits = self.rides(layout, n_layers, layers)
        return block_passes(edits, n_layers, MOST)[0] if edits else 0


# A new measurement is a new entry; its curves stand in `clsinterp.sweeps.columns`: `BESIDE`, and `PROBED_BESIDE` for `reads`.
EXTRAS: dict[str, Extra] = {
    "erasure": Extra(
        erasures,
        lambda layout, n_layers, layers: [Edit({layer: abs}) for layer in layers],
        fit=fit_eraser,
        reads=readings,
        regressions=2,
        probed=tuple(PROBED_BESIDE),
    ),
    "rereading": Extra(
        lambda model, layers, fitted: knock_outs(model, layers),
        lambda layout, n_layers, layers: list(knock_outs_of(layout, n_layers, layers).values()),
    ),
}


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """`names`, sorted, without repeats.

    Raises:
        RequestError: one that is not in the table.
    """
    for name in names:
        if name not in EXTRAS:
            raise RequestError(f"also={name!r} was given; some of {', '.join(EXTRAS)} are expected.")
    return tuple(sorted(set(names)))


def solves(names: Iterable[str], layers: Sequence[int]) -> list[str]:
    """Names of the units of the stage ``solve`` that the extras called `names` need: ``NAME LAYER``."""
    return [f"{name} {layer}" for name in names if EXTRAS[name].fit for layer in layers]


def solved(unit: str, layers: Sequence[int]) -> tuple[Extra, int] | None:
    """The extra of a unit of `solves` and the place of its layer among `layers`; None for another unit."""
    name, _, layer = unit.partition(" ")
    return (EXTRAS[name], list(layers).index(int(layer))) if name in EXTRAS else None


def stacked(fitted: Mapping[str, dict[str, Tensor]], names: Iterable[str], layers: Sequence[int]) -> dict[str, Tensor]:
    """What `fit` gave, by unit, as tensors ``NAME.KEY`` with a layer axis in front."""
    out: dict[str, Tensor] = {}
    for name in names:
        if EXTRAS[name].fit:
            by_layer = [fitted[f"{name} {layer}"] for layer in layers]
            out |= {f"{name}.{key}": torch.stack([one[key] for one in by_layer]) for key in by_layer[0]}
    return out


@dataclass(frozen=True)
class Part:
    """What one extra does to a batch: edits by where their column stands, and what reads their tokens, by column."""

    edits: dict[Place, Edit]
    readings: dict[str, Reading]


@dataclass(frozen=True)
class Measurement:
    """Some extras on one model.

    Args:
        model: the model.
        readers: what reads the output.
        parts: a part for each extra. They ride one after the other, so that tokens are kept of those only that are read.
    """

    model: VisionModel
    readers: Readers
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(
        cls, model: VisionModel, readers: Readers, names: Iterable[str], layers: Sequence[int], tensors: Fitted
    ) -> "Measurement":
        """That of the extras called `names`; `tensors` as `stacked` gave them, the probes of `readers` of all `layers`."""
        parts = []
        for name in names:
            extra, probes = EXTRAS[name], readers.probes
            own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            read = extra.reads(layers, own, probes) if extra.reads and probes is not None else {}
            if edits := extra.edits(model, layers, own):
                parts.append(Part(edits, read))
        return cls(model, readers, tuple(parts))

    def __call__(self, pixels: Tensor, targets: Tensor, labels: Tensor, at_once: int) -> dict[str, Tensor]:
        """The columns of a batch, (batch,) each.

        Args:
            pixels: of the images.
            targets: their classes in the classifier's space.
            labels: their classes in the probes' space.
            at_once: images that ride together, each with at most `MOST` edited copies.

        Raises:
            RunError: NaN or infinity in a copy's output.
        """
        found: dict[str, list[Tensor]] = {}
        for part in self.parts:
            for images in zip(pixels.split(at_once), targets.split(at_once), labels.split(at_once), strict=True):
                for name, values in self._columns(part, *images).items():
                    found.setdefault(name, []).append(values)
        return {name: torch.cat(values) for name, values in found.items()}

    def _columns(self, part: Part, pixels: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Those of one extra for images that ride together."""
        ridden = variants(
            self.model,
            pixels,
            list(part.edits.values()),
            watched={reading.probed for reading in part.readings.values()},
            reader=Answers(self.readers, targets.clone()),
            at_once=MOST,
        )
        copies = {place: k for k, place in enumerate(part.edits, start=1)}
        out = {}
        for (curve, layer), k in copies.items():
            read = ridden.read[k]
            if not bool(read.pop("finite").all()):
                raise not_finite(None)
            for key, values in read.items():
                kind, _, alone = key.partition("_")
                out[column(f"{curve}_{alone}" if alone else curve, layer, kind=kind)] = values
        for name, reading in part.readings.items():
            out[name] = reading.ranks(ridden.tokens[reading.probed][copies[reading.edit]], labels)
        return out
