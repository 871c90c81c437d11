"""How fast, against what, in one run on the machine at hand: ratios with their spread. Nothing here is asserted.

    python experiments/bench.py [--quick] [--only NAME,..] [--out bench.parquet] [--figures docs/bench.json]

Every comparison alternates the two sides, after a warm-up of each, and gives the median ratio and the range over repeats.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image
from rich.console import Console
from rich.table import Table

LAYERS = 12


@dataclass(frozen=True)
class Row:
    what: str
    against: str
    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    unit: str
    target: str


def compare(what: str, against: str, target: str, ours: Callable, theirs: Callable, repeats: int) -> Row:
    def seconds(function: Callable) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    seconds(ours), seconds(theirs)  # warm-up
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    mine, other = (statistics.median(x) for x in zip(*pairs, strict=True))
    return Row(what, against, statistics.median(ratios), min(ratios), max(ratios), mine, other, "s", target)


def random_model(family: str, width: int, side: int, patch: int):
    from clsinterp.model import VisionModel

    common = {
        "hidden_size": width, "num_hidden_layers": LAYERS, "num_attention_heads": width // 32, "image_size": side,
        "patch_size": patch, "id2label": {i: f"c{i}" for i in range(100)}, "label2id": {f"c{i}": i for i in range(100)},
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "dinov2":
        return VisionModel(hf.Dinov2ForImageClassification(hf.Dinov2Config(**common)))
    common["intermediate_size"] = 4 * width
    if family == "deit":
        return VisionModel(hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**common)))
    return VisionModel(hf.ViTForImageClassification(hf.ViTConfig(**common)))


def fork_rows(sizes: dict[str, tuple[int, int, int, int]], repeats: int) -> list[Row]:
    """The fork against a hooked forward per layer and read-out, and against the best loop: one per layer for all curves."""
    from clsinterp.fork import Readers, fork
    from clsinterp.interventions import permute
    from clsinterp.naive import plain_forward, sweep
    from clsinterp.probes import RidgeStats, solve
    from clsinterp.readout import Head

    rows = []
    for width, side, patch, n in sizes.values():
        for family in ("dinov2", "deit", "vit"):
            model = random_model(family, width, side, patch)
            pixels = torch.randn(n, 3, side, side)
            targets, donors = torch.arange(n) % 100, permute(n, 0)
            stats = RidgeStats(LAYERS, width, 100)
            stats.update(torch.randn(LAYERS, 200, width), torch.arange(200) % 100, torch.arange(200))
            layers = tuple(range(LAYERS))
            readers = Readers(Head.of(model.family, model.heads), probes=solve(stats), probed=layers)

            def swap(tokens: torch.Tensor, donors: torch.Tensor = donors) -> torch.Tensor:
                return tokens[donors]

            def ours(model=model, pixels=pixels, targets=targets, donors=donors, readers=readers, layers=layers):
                fork(model, pixels, targets, donors, readers, layers=layers)

            def best(model=model, pixels=pixels, targets=targets, donors=donors, readers=readers, layers=layers):
                sweep(model, pixels, targets, donors, readers, layers=layers)

            def each(model=model, pixels=pixels, swap=swap):
                plain_forward(model, pixels)  # the activations, for probes and lens
                for _ in model.family.readouts:
                    plain_forward(model, pixels)
                    for layer in range(LAYERS):
                        plain_forward(model, pixels, layer, 0, swap)

            name = f"fork, {family}, {LAYERS} x {width}, {(side // patch) ** 2} patches, {n} images"
            if len(model.family.readouts) > 1:
                rows.append(compare(name, "a forward per layer and read-out", ">= 3.5", ours, each, repeats))
            rows.append(compare(name, "best loop: a forward per layer", ">= 1.7", ours, best, repeats))
    return rows


def write_images(folder: Path, n: int) -> Path:
    import datasets

    rng = np.random.default_rng(0)

    def rows():
        for i in range(n):
            buffer = BytesIO()
            Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)).save(buffer, "PNG")
            yield {"image": {"bytes": buffer.getvalue(), "path": None}, "label": i % 10}

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"c{i}" for i in range(10)])}
    )
    for split in ("train", "test"):
        datasets.Dataset.from_generator(rows, features=features, cache_dir=folder / "cache").to_parquet(
            folder / f"{split}-{n}.parquet"
        )
    return folder


def memory_row(counts: tuple[int, int]) -> Row:
    """Peak resident memory of a whole run, train and test, with few and with many images."""
    peak = {}
    for n in counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "data").mkdir()
            write_images(folder / "data", n)
            model = hf.ViTForImageClassification(
                hf.ViTConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=28,
                             patch_size=14, num_labels=10)
            )  # fmt: skip
            model.save_pretrained(folder / "model")
            hf.ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder / "model")
            code = (
                "import resource, sys; from clsinterp.cli import app; "
                "app(sys.argv[1:], standalone_mode=False); "
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            arguments = ["run", folder / "model", "--data", folder / "data", "--out", folder / "run", "--head", "fit", "--quiet",
                         "--memory-gb", "1"]  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
            )
            peak[n] = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024) / 1e6
    few, many = (peak[n] for n in counts)
    ratio = many / few
    return Row(
        f"peak memory, {counts[1]} images", f"{counts[0]} images", ratio, ratio, ratio, many, few, "MB", "<= 1.05"
    )


def probe_rows(repeats: int) -> list[Row]:
    """Probes of all layers with 5-fold cross-validation over the grid, against scikit-learn's RidgeCV layer by layer."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    from clsinterp.probes import ALPHAS, RidgeStats, solve

    n, d, c = 2000, 192, 50
    x, labels = torch.randn(LAYERS, n, d), torch.arange(n) % c
    y = (2 * torch.eye(c)[labels] - 1).numpy()

    def ours() -> None:
        stats = RidgeStats(LAYERS, d, c)
        for start in range(0, n, 128):
            part = slice(start, start + 128)
            stats.update(x[:, part], labels[part], torch.arange(n)[part])
        solve(stats)

    def theirs() -> None:
        for layer in x.double().numpy():
            GridSearchCV(Ridge(), {"alpha": list(ALPHAS)}, cv=5, scoring="neg_mean_squared_error").fit(layer, y)

    what = f"ridge probes, {LAYERS} layers, {n} x {d}, {c} classes, 5 folds, {len(ALPHAS)} alphas"
    return [compare(what, "scikit-learn GridSearchCV(Ridge) per layer", "not set", ours, theirs, repeats)]


def help_row(repeats: int) -> Row:
    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(arguments, capture_output=True, check=True)

    name = str(Path(sys.executable).with_name("clsinterp"))
    row = compare(
        "clsinterp --help",
        "python -c pass",
        "< 0.5 s",
        command(name, "--help"),
        command(sys.executable, "-c", "pass"),
        repeats,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, two repeats")
    parser.add_argument("--only", default="fork,probes,memory,help", help="fork,probes,memory,help")
    parser.add_argument("--out", type=Path, help="also write the table as parquet")
    parser.add_argument("--figures", type=Path, help="also measure what docs/imagenet.md is worked out from, as JSON")
    parser.add_argument("--provisional", action="store_true", help="mark these figures as from a busy machine")
    args = parser.parse_args()
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    repeats = 2 if args.quick else 5
    sizes = {"zoo": (64, 28, 4, 128)} | ({} if args.quick else {"small": (384, 224, 16, 8)})
    wanted, rows = set(args.only.split(",")), []
    if "fork" in wanted:
        rows += fork_rows(sizes, repeats)
    if "probes" in wanted:
        rows += probe_rows(repeats)
    if "memory" in wanted:
        rows.append(memory_row((1000, 4000) if args.quick else (1000, 20000)))
    if "help" in wanted:
        rows.append(help_row(2 * repeats))
    table = Table("what", "against", "ratio (range)", "ours", "theirs", "target")
    for r in rows:
        table.add_row(
            r.what,
            r.against,
            f"{r.ratio:.2f} ({r.low:.2f}-{r.high:.2f})",
            f"{r.ours:.3g} {r.unit}",
            f"{r.theirs:.3g} {r.unit}",
            r.target,
        )
    if args.figures:
        from cost_figures import write

        write(args.figures, repeats, args.provisional)
    threads = torch.get_num_threads()
    Console(width=160).print(table, f"torch {torch.__version__}, {threads} threads", sep="\n")
    if args.out:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([asdict(r) for r in rows]), args.out)


if __name__ == "__main__":
    main()
