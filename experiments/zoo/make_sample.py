"""Write the sample that ships, 200 train and 100 test images per class of Fashion-MNIST as PNG in parquet, or all of it.

python experiments/zoo/make_sample.py
python experiments/zoo/make_sample.py --whole --out fashion-mnist
"""

import argparse
from io import BytesIO
from pathlib import Path

import common
import datasets
import torch
from PIL import Image

OUT = Path(__file__).parents[2] / "clsinterp" / "zoo" / "fashion-mnist-sample"


def png(image: torch.Tensor) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=common.FASHION, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--whole", action="store_true", help="all 60,000 and 10,000 images")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=common.CLASSES)})
    for split, per_class in (("train", 200), ("test", 100)):
        images, labels = common.load_split(args.data, split)
        draw = torch.Generator().manual_seed(0)
        by_class = [torch.nonzero(labels == c).flatten() for c in range(len(common.CLASSES))]
        if not args.whole:
            by_class = [rows[torch.randperm(len(rows), generator=draw)[:per_class]] for rows in by_class]
        chosen = torch.cat(by_class).sort().values
        rows = [
            {"image": {"bytes": png(images[i]), "path": f"{split}/{i:05d}.png"}, "label": int(labels[i])}
            for i in chosen.tolist()
        ]
        datasets.Dataset.from_list(rows, features=features).to_parquet(args.out / f"{split}.parquet")
        print(f"{split}: {len(rows)} images")


if __name__ == "__main__":
    main()
