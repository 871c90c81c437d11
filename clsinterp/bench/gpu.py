"""The fork on a GPU against the card's own matrix rate, and the sums of the probes against the CPU's; by the wall's time."""

import time
from collections.abc import Callable

import torch

from clsinterp.bench.models import N_CLASSES, N_LAYERS, Size
from clsinterp.bench.sweeps import LAYERS, Setting
from clsinterp.bench.timing import Row, compare
from clsinterp.probing.ridge import RidgeStats
from clsinterp.runs.cost import Shape
from clsinterp.sweeps.capture import capture

SIDE = 8192  # of the square product that gives the card's rate
GOAL = ">= 0.6"
SIZE = Size(width=768, side=224, patch=16, images=128)
WHOLE = 1024  # images of the plain forward, so that its launches cost nothing
SMALL = Size(width=384, side=112, patch=14, images=128)


def gpu_rows(quick: bool) -> list[Row]:
    """Fork, capture and plain forward in bfloat16 and float32, and the ridge sums; one empty row where there is no GPU."""
    if not torch.cuda.is_available():
        return [Row.missing("all curves on a GPU, vit 12 x 768 in bfloat16", "no CUDA device here", GOAL)]
    repeats = 3 if quick else 7
    rows = []
    for family, size, dtype in (
        ("vit", SIZE, torch.bfloat16),
        ("vit", SIZE, torch.float32),
        ("dinov2", SIZE, torch.bfloat16),
        ("dinov2", SMALL, torch.float32),
    ):
        rows += _forwards(family, size, dtype, repeats)
    return [*rows, *_sums(repeats)]


def _forwards(family: str, size: Size, dtype: torch.dtype, repeats: int) -> list[Row]:
    s = _setting(family, size, dtype)
    tokens = (size.side // size.patch) ** 2 + 1
    shape = Shape("", N_LAYERS, size.width, tokens, 4 * size.width, reads_token=s.model.reads_prefix)
    forward = N_LAYERS * shape.block_flops
    many = s.pixels.repeat(WHOLE // size.images, 1, 1, 1)
    module, kind = s.model._module, f"{family} {size}, {str(dtype)[6:]}"

    @torch.inference_mode()
    def plain() -> None:
        module(many)

    a, b = (torch.randn(SIDE, SIDE, device="cuda").to(dtype) for _ in range(2))
    products = 4 if dtype == torch.float32 else 32

    def rate() -> None:
        for _ in range(products):
            a @ b

    def row(what: str, ours: Callable[[], object], flops: float) -> Row:
        scale = flops / (products * 2 * SIDE**3)
        against = "its operations at the rate of a matrix product"
        name = f"on a GPU: {what}, {kind}"
        return compare(name, against, GOAL, _whole(ours), _whole(rate), repeats, scale, time.perf_counter)

    return [
        row("all curves", s.fork, size.images * shape.fork_passes * shape.block_flops),
        row("CLS at every layer", lambda: capture(s.model, s.pixels, LAYERS), size.images * forward),
        row(f"plain forward of {WHOLE} images at once", plain, WHOLE * forward),
    ]


def _sums(repeats: int) -> list[Row]:
    """The ridge sums of a batch."""
    n, d = SIZE.images, SIZE.width
    x, labels, index = torch.randn(N_LAYERS + 1, n, d, device="cuda"), torch.arange(n) % N_CLASSES, torch.arange(n)

    def sums(device: str) -> Callable[[], None]:
        stats = RidgeStats.zeros(N_LAYERS + 1, d, N_CLASSES, device=device)
        return _whole(lambda: stats.update(x, labels, index))

    what, against = f"on a GPU: ridge sums in float64, {N_LAYERS + 1} layers x {d}, {n} images", "on its CPU"
    return [compare(what, against, ">= 5", sums("cuda"), sums("cpu"), repeats, clock=time.perf_counter)]


def _setting(family: str, size: Size, dtype: torch.dtype) -> Setting:
    s = Setting.of(family, size)
    s.model._module.to("cuda", dtype)
    return Setting(s.model, s.pixels.to("cuda", dtype), s.targets, s.donors, s.readers.to(torch.device("cuda")))


def _whole(function: Callable[[], object]) -> Callable[[], None]:
    """`function`, and then nothing of it left in the card's queue."""

    def call() -> None:
        function()
        torch.cuda.synchronize()

    return call
