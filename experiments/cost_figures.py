"""Figures that `clsinterp.runs.cost` multiplies up: rates of the fork at full width, of the statistics, of the decoder.

python experiments/cost_figures.py --measure  # docs/bench.json anew, on an idle machine (or --provisional), then the page
python experiments/cost_figures.py            # docs/imagenet.md from docs/bench.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

from clsinterp.runs.cost import CLASSES, SHAPES, Measured, Shape, tables

BLOCKS = 4  # of full width; time per block-pass does not depend on how many there are
IMAGES = {"ViT-B/16": 8, "ViT-L/16": 8, "DINOv2-g/14": 4}
START, END = "<!-- tables: made by experiments/cost_figures.py -->", "<!-- end of tables -->"


def seconds(function: Callable, repeats: int) -> float:
    function()  # warm-up
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def model_of(shape: Shape):
    from clsinterp.vision_model import VisionModel

    common = {"hidden_size": shape.d_model, "num_hidden_layers": BLOCKS, "num_attention_heads": shape.d_model // 64,
              "image_size": 224, "num_labels": CLASSES}  # fmt: skip
    if shape.name.startswith("DINOv2"):
        config = hf.Dinov2Config(**common, patch_size=14, use_swiglu_ffn=True)
        return VisionModel(hf.Dinov2ForImageClassification(config))
    config = hf.ViTConfig(**common, patch_size=16, intermediate_size=shape.mlp_width)
    return VisionModel(hf.ViTForImageClassification(config))


def fork_rate(shape: Shape, repeats: int) -> float:
    """FLOPs of block-passes per second of a fork with swaps at every layer; everything else it does costs time too."""
    from clsinterp.interventions import permute
    from clsinterp.probing.head import Head
    from clsinterp.sweeps.fork import fork
    from clsinterp.sweeps.readers import Readers

    model, n, layers = model_of(shape), IMAGES[shape.name], range(BLOCKS)
    pixels, targets, donors = torch.randn(n, 3, 224, 224), torch.arange(n), permute(n, 0)
    readers = Readers(Head.of(model.family, model.heads))
    took = seconds(lambda: fork(model, pixels, targets, donors, readers, layers=layers), repeats)
    return n * replace(shape, n_layers=BLOCKS).fork_passes * shape.block_flops / took


def measure(repeats: int, provisional: bool) -> Measured:
    from clsinterp.data.images import decode
    from clsinterp.probing.ridge import RidgeStats, solve

    torch.manual_seed(0)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    passes = {shape.name: fork_rate(shape, repeats) for shape in SHAPES}
    d, n = 768, 2000
    stats, x, index = RidgeStats.zeros(1, d, CLASSES), torch.randn(1, n, d), torch.arange(n)

    def add() -> None:
        for part in index.split(128):
            stats.update(x[:, part], part % CLASSES, part)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (47, 63, 3), np.uint8)).resize((500, 375))
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    processor = hf.ViTImageProcessorPil(size={"height": 224, "width": 224})
    threads = torch.get_num_threads()
    product, adding = seconds(lambda: a @ b, 3 * repeats), seconds(add, repeats)
    torch.set_num_threads(1)  # as the run does
    return Measured(
        machine=f"{platform.machine()}, {threads} threads, torch {torch.__version__}",
        provisional=provisional,
        matmul_flops=2 * 2048**3 / product,
        passes=passes,
        statistics_flops=n * 2 * d**2 / adding,
        solve_seconds=seconds(lambda: solve(stats), repeats),
        solve_width=d,
        decode_seconds=seconds(
            lambda: processor(images=decode(buffer.getvalue(), "x"), return_tensors="pt"), 10 * repeats
        ),
    )


def put_into(page: str, measured: Measured) -> str:
    """`page` with its tables, and what they were measured on, made anew."""
    before, after = page.split(START)[0], page.split(END)[1]
    state = "Provisional: measured while other work ran on the machine. " if measured.provisional else ""
    return f"{before}{START}\n\n{state}Measured on: {measured.machine}.\n\n{tables(measured)}\n\n{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure anew before")
    parser.add_argument("--provisional", action="store_true", help="mark the figures as from a busy machine")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    docs = Path(__file__).parents[1] / "docs"
    if args.measure:
        found = asdict(measure(args.repeats, args.provisional))
        (docs / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    page = docs / "imagenet.md"
    page.write_text(put_into(page.read_text(), Measured.read(docs / "bench.json")))
