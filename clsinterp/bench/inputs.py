"""The input pipeline against the checkpoint's own processor called on a list, and memory against the number of images."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from clsinterp.bench.timing import Row, compare
from clsinterp.data.batches import batches
from clsinterp.data.sources import open_data

PEAK = """
import resource, sys
from clsinterp.cli import app
app(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _parquet(folder: Path, n: int, side: int, kind: str) -> Path:
    """`n` noise images in ten classes, as train and test parquet."""
    import datasets

    def rows() -> Iterator[dict]:
        generator = np.random.default_rng(0)
        for i in range(n):
            buffer = BytesIO()
            Image.fromarray(generator.integers(0, 255, (side, side, 3), np.uint8)).save(buffer, kind)
            yield {"image": {"bytes": buffer.getvalue(), "path": None}, "label": i % 10}

    classes = datasets.ClassLabel(names=[f"class {i}" for i in range(10)])
    features = datasets.Features({"image": datasets.Image(), "label": classes})
    with tempfile.TemporaryDirectory() as cache:
        data = datasets.Dataset.from_generator(rows, features=features, cache_dir=cache)
        for split in ("train", "test"):
            data.to_parquet(folder / f"{split}.parquet")
    return folder


def input_rows(quick: bool) -> list[Row]:
    """Decode, resize to 224, normalise, on two worker processes; pixels are compared too."""
    n = 300 if quick else 1000
    with tempfile.TemporaryDirectory() as temporary:
        split, _ = open_data(str(_parquet(Path(temporary), n, 256, "JPEG")), "train", "test")
        processor = transformers.ViTImageProcessorPil(size={"height": 224, "width": 224})
        got: dict[str, torch.Tensor] = {}

        def ours() -> None:
            got["ours"] = torch.cat(list(batches(split, processor, 128, workers=2)))

        def theirs() -> None:
            images = [split.image(i) for i in range(n)]
            got["theirs"] = processor(images=images, return_tensors="pt")["pixel_values"]

        against = "the checkpoint's processor on a list"
        name, repeats = f"input pipeline, {n} JPEGs of 256 px", 2 if quick else 5
        row = compare(
            name, against, ">= 1.5", ours, theirs, repeats, clock=time.perf_counter
        )  # two workers: the wall's
        same = "equal" if torch.equal(got["ours"], got["theirs"]) else "DIFFERENT"
        return [Row(f"{row.what}; pixels {same}", *list(vars(row).values())[1:])]


def memory_rows(quick: bool) -> list[Row]:
    """Peak resident memory of a whole run, train and test, with few and with many images."""
    few, many = (1000, 4000) if quick else (1000, 20000)
    peak = {n: _peak(n) for n in (few, many)}
    ratio = peak[many] / peak[few]
    return [
        Row(f"peak memory, {many} images", f"{few} images", ratio, ratio, ratio, peak[many], peak[few], "MB", "<= 1.05")
    ]


def _peak(n: int) -> float:
    """Megabytes at the peak of a run over `n` training and `n` test images."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        _parquet(folder / "data", n, 28, "PNG")
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=28, patch_size=14,
            id2label={i: str(i) for i in range(10)}, label2id={str(i): i for i in range(10)},
        )  # fmt: skip
        transformers.ViTForImageClassification(config).save_pretrained(folder / "model")
        transformers.ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder / "model")
        asked = ["run", folder / "model", "--data", folder / "data", "--out", folder / "run", "--head", "fit", "--quiet",
                 "--memory-gb", "1"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, asked)], capture_output=True, text=True, check=True
        )
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024) / 1e6
