"""What a run costs before it is begun: block-passes, FLOPs, bytes, and seconds from measured rates. Arithmetic only.

Counts are per image. With T tokens of width d, k matrices of d x m in the MLP:

- a block-pass: ``2 T (4 d^2 + k d m) + 4 T^2 d`` FLOPs (four projections, the MLP, the two products of attention; norms,
  biases and softmax are left out);
- the train pass: L block-passes; ridge statistics: ``2 d^2`` FLOPs per layer in float64;
- the test pass: ``L (L + 1) / 2`` block-passes, as the fork adds a copy after every block, and L more if the batch with
  its copies does not fit into memory at once;
- what is measured beside the note (``--also``): the block-passes of its edits as they share rows, by the planner itself
  (`clsinterp.sweeps.plan.block_passes`): erasure at every layer takes as many as the swaps do, and ``L`` more for every `MOST`
  copies beyond the first. Rows of attention that a knock-out forms again are left out: ``4 T^2 d`` in a block where patches are
  cut, next to nothing where the CLS token is;
- a file of statistics: ``8 F (d^2 + C d + C / L)`` bytes per layer for F folds and C classes; ranks: 4 bytes a column, answers 2.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsinterp.models.tokens import TokenLayout
from clsinterp.probing.ridge import FOLDS
from clsinterp.runs.extras import EXTRAS
from clsinterp.runs.units import Layout, Shard
from clsinterp.sweeps.batching import LIVE_PER_BLOCK, SHARE_OF_FREE
from clsinterp.sweeps.columns import columns
from clsinterp.sweeps.variants import MOST

TRAIN, TEST, CLASSES, BATCH = 1_281_167, 50_000, 1000, 128  # ImageNet-1k
FLOAT32, FLOAT64 = 4, 8
ONE_READOUT = ("intact", "shuffle", "donor", "lens", "probe", "restoration")
ALL = (*ONE_READOUT, "intact_cls_only", "shuffle_cls_only")


def swap_passes(n_layers: int, layers: Sequence[int]) -> int:
    """Block-passes of one image in a fork with a copy from each of `layers` (-1: before block 0) on.

    Example:
        >>> swap_passes(12, range(12)), swap_passes(12, [0, 11])
        (78, 23)
    """
    return n_layers + sum(n_layers - 1 - layer for layer in layers)


@dataclass(frozen=True)
class Shape:
    """What of a vision transformer its cost depends on.

    Attributes:
        name: for tables.
        n_layers, d_model, n_tokens: blocks, width, tokens with the prefix.
        mlp_width, mlp_matrices: hidden width of the MLP, and its number of d_model x mlp_width matrices (SwiGLU has 3).
        n_readouts: token groups the classifier reads.
        prefix: token groups before the patches, with how many tokens each has.
    """

    name: str
    n_layers: int
    d_model: int
    n_tokens: int
    mlp_width: int
    mlp_matrices: int = 2
    n_readouts: int = 1
    prefix: tuple[tuple[str, int], ...] = (("cls", 1),)

    @property
    def block_flops(self) -> int:
        """FLOPs of one image through one block."""
        t, d = self.n_tokens, self.d_model
        return 2 * t * (4 * d * d + self.mlp_matrices * d * self.mlp_width) + 4 * t * t * d

    @property
    def fork_passes(self) -> int:
        """Block-passes of one image in the test pass, swapped at every layer."""
        return swap_passes(self.n_layers, range(self.n_layers))

    def also_passes(self, also: Iterable[str]) -> int:
        """Block-passes of one image in the test pass for what is measured beside the note."""
        layout = TokenLayout.of(self.name, self.prefix)
        return sum(EXTRAS[name].block_passes(layout, self.n_layers, range(self.n_layers)) for name in also)

    def also_columns(self, also: Iterable[str]) -> int:
        """Rank columns of the same."""
        layout, layers = TokenLayout.of(self.name, self.prefix), range(self.n_layers)
        outputs = 2 if self.n_readouts > 1 else 1
        return sum(
            outputs * len(EXTRAS[name].rides(layout, self.n_layers, layers)) + len(columns(layers, EXTRAS[name].probed))
            for name in also
        )

    @property
    def rank_columns(self) -> int:
        """Columns of ``images.parquet``: output, donor, lens and probe per layer, CLS-only output, restoration."""
        return len(columns(range(self.n_layers), ALL if self.n_readouts > 1 else ONE_READOUT))

    def statistics_bytes(self, n_classes: int, folds: int = FOLDS) -> int:
        """Bytes of the ridge statistics of all layers, which are those of a train unit's file."""
        per_layer = self.d_model * (self.d_model + n_classes)
        return FLOAT64 * folds * (self.n_layers * per_layer + n_classes)

    def fork_bytes(self, also: Sequence[str] = ()) -> int:
        """Bytes of activations that one image takes with its copies, as `images_at_once` counts.

        A swapped copy for every layer rides with it, or as many edited ones as `also` lets ride, whichever are more.
        """
        copies = max(self.n_layers, MOST if also else 0)
        return self.n_tokens * self.d_model * LIVE_PER_BLOCK * FLOAT32 * (copies + 1)

    def test_passes(self, memory_bytes: float, batch: int = BATCH, also: Sequence[str] = ()) -> int:
        """`fork_passes`, a pass of the intact batch before if not all of it rides at once, and `also_passes`."""
        fits = memory_bytes >= batch * self.fork_bytes(also)
        return self.fork_passes + (0 if fits else self.n_layers) + self.also_passes(also)

    def layout(self, n_train: int = TRAIN, n_test: int = TEST, n_classes: int = CLASSES) -> Layout:
        """How such a run is cut into units."""
        solves = tuple(f"probe {i}" for i in range(self.n_layers))
        return Layout.of(n_train, n_test, BATCH, solves, FOLDS * (self.d_model + n_classes))


SHAPES = (
    Shape("ViT-B/16", 12, 768, 197, 3072),
    Shape("ViT-L/16", 24, 1024, 197, 4096),
    Shape("DINOv2-g/14", 40, 1536, 257, 4096, mlp_matrices=3, n_readouts=2),
)


@dataclass(frozen=True)
class Measured:
    """Figures of ``experiments/cost_figures.py --measure`` on one machine.

    Attributes:
        machine: what it was.
        provisional: whether they still have to be measured on an idle machine.
        matmul_flops: FLOPs per second of a large float32 matrix product.
        passes: for each shape by name, FLOPs per second of a whole fork.
        statistics_flops: FLOPs per second of adding to ridge statistics.
        solve_seconds, solve_width: seconds to fit one probe of 1000 classes and that width, with cross-validation.
        decode_seconds: to read a JPEG of 500 x 375 pixels and bring it to 224, one core.
    """

    machine: str
    provisional: bool
    matmul_flops: float
    passes: dict[str, float]
    statistics_flops: float
    solve_seconds: float
    solve_width: int
    decode_seconds: float

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """The figures in a JSON file."""
        return cls(**json.loads(path.read_text()))

    def share(self, shape: Shape) -> float:
        """How much of the rate of a large matrix product a fork of that shape reaches."""
        return self.passes[shape.name] / self.matmul_flops


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet.

    Attributes:
        name: for tables.
        flops: float32 FLOPs per second.
        memory: bytes.
    """

    name: str = "A100 80 GB"
    flops: float = 19.5e12
    memory: float = 80e9


def plan(
    shape: Shape, measured: Measured, device: Device, n_devices: int, also: Sequence[str] = ()
) -> dict[str, float]:
    """Seconds of the three stages for all of ImageNet-1k, one shard per device; the slowest shard counts.

    A pass runs at the device's rate times the share of that rate which the same pass reached where it was measured.
    Ridge statistics and their solution run on the host at the measured rate. Reading and decoding images go on beside;
    ``cores`` says how many must do so to keep one device busy in the train pass.
    """
    rate = device.flops * measured.share(shape)
    layout = shape.layout()

    def slowest(stage: str) -> int:
        shards = (Shard(i, n_devices).part(layout.units(stage)) for i in range(1, n_devices + 1))
        return max(layout.n_images(units) for units in shards)

    forward = shape.n_layers * shape.block_flops / rate
    statistics = shape.n_layers * 2 * shape.d_model**2 / measured.statistics_flops
    test_passes = shape.test_passes(device.memory * SHARE_OF_FREE, also=also)
    one_probe = measured.solve_seconds * (shape.d_model / measured.solve_width) ** 3
    regressions = shape.n_layers * (1 + sum(EXTRAS[name].regressions for name in also))
    seconds = {
        "train": slowest("train") * (forward + statistics),
        "solve": -(-regressions // n_devices) * one_probe,
        "test": slowest("test") * test_passes * shape.block_flops / rate,
    }
    return seconds | {"total": sum(seconds.values()), "cores": measured.decode_seconds / (forward + statistics)}


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(42), duration(600), duration(9000), duration(400000)
        ('42 s', '10 min', '2.5 h', '4.6 days')
    """
    for size, unit, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def tables(measured: Measured, device: Device | None = None) -> str:
    """The two tables of ``docs/imagenet.md`` as markdown: per image and layer, and the whole run on 1 and 64 devices."""
    device = device or Device()
    what: list[list[Any]] = [
        ["", *(s.name for s in SHAPES)],
        ["blocks, width, tokens", *(f"{s.n_layers}, {s.d_model}, {s.n_tokens}" for s in SHAPES)],
        ["GFLOP of a block-pass", *(f"{s.block_flops / 1e9:.2f}" for s in SHAPES)],
        ["ms of a block-pass, measured", *(f"{1e3 * s.block_flops / measured.passes[s.name]:.0f}" for s in SHAPES)],
        ["share of a matrix product's rate", *(f"{measured.share(s):.2f}" for s in SHAPES)],
        ["block-passes, train pass", *(s.n_layers for s in SHAPES)],
        ["block-passes, test pass", *(s.test_passes(device.memory * SHARE_OF_FREE) for s in SHAPES)],
        *(
            [f"block-passes, test pass, --also {name} beside", *(s.also_passes([name]) for s in SHAPES)]
            for name in EXTRAS
        ),
        ["MB of activations, test pass", *(f"{s.fork_bytes() / 1e6:.0f}" for s in SHAPES)],
        ["MB of activations, with --also", *(f"{s.fork_bytes(list(EXTRAS)) / 1e6:.0f}" for s in SHAPES)],
        ["bytes of ranks", *(FLOAT32 * s.rank_columns for s in SHAPES)],
        ["bytes of ranks, --also beside", *(FLOAT32 * s.also_columns(EXTRAS) for s in SHAPES)],
    ]
    whole: list[list[Any]] = [["", *(s.name for s in SHAPES)]]
    for n in (1, 64):
        plans = [plan(s, measured, device, n) for s in SHAPES]
        gpus = f"{n} GPU{'s' * (n > 1)}"
        whole += [[f"{x}, {gpus}", *(duration(p[x]) for p in plans)] for x in ("train", "solve", "test", "total")]
        beside = [plan(s, measured, device, n, list(EXTRAS)) for s in SHAPES]
        whole.append([f"total with --also {','.join(EXTRAS)}, {gpus}", *(duration(p["total"]) for p in beside)])
        if n == 1:
            whole.append(["cores that decode, per GPU", *(f"{p['cores']:.1f}" for p in plans)])
    layouts = [s.layout() for s in SHAPES]
    sizes = [s.statistics_bytes(CLASSES) / 1e9 for s in SHAPES]
    whole.append(["train units, test units", *(f"{len(x.units('train'))}, {len(x.units('test'))}" for x in layouts)])
    whole.append(["GB of one statistics file", *(f"{g:.1f}" for g in sizes)])
    depth = [(len(x.units("train")) - 1).bit_length() + 2 for x in layouts]
    whole.append(["GB on the disk at most, 1 GPU", *(f"{d * g:.0f}" for d, g in zip(depth, sizes, strict=True))])
    return f"{_markdown(what)}\n\n{_markdown(whole)}"


def _markdown(rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])
