"""The whole note on an NDIF server: the weights are never loaded here.

Method. The model is built from its config alone. For the train images the CLS tokens of every layer come down and the ridge
probes are fitted here; for the test images each batch is one request that carries the whole fork, and ranks come down. The
numbers are those of a run here on the same device and dtype. The API key is read from NDIF_API_KEY.

    python experiments/remote_note.py facebook/dinov2-giant-imagenet1k-1-layer --data ILSVRC/imagenet-1k --train-per-class 50

On a server of your own add --host http://that-machine:PORT. An interrupted run goes on with --resume.
"""

import argparse
import logging
from pathlib import Path

from rich.console import Console

from clsinterp import VisionModel
from clsinterp.checks.remote import check_remote
from clsinterp.remote.server import Server
from clsinterp.runs.request import Request, Resources
from clsinterp.runs.results import read_run
from clsinterp.runs.run import run

say = Console().print


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--host", help="default: NDIF_HOST, or NDIF")
    parser.add_argument("--train-per-class", type=int, help="images of each class for the probes")
    parser.add_argument("--limit", type=int, help="first N train and test images only")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/remote_note"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # retries and long queues are said here

    server = Server(args.host)
    for finding in check_remote(VisionModel(args.model, remote=server)):
        say("ok  " if finding.holds else "NO  ", finding.what, finding.detail, highlight=False)
        if not finding.holds:
            raise SystemExit(1)

    request = Request(
        args.model,
        args.data,
        train_per_class=args.train_per_class,
        limit=args.limit,
        batch_size=args.batch_size,
    )
    folder = run(request, args.out, resources=Resources(server=server), resume=args.resume)
    report, curves = read_run(folder)
    went = report.manifest.remote
    say(f"{went['requests']} requests, {went['bytes_up'] / 1e6:.2f} MB up, {went['bytes_down'] / 1e6:.2f} MB down")
    for row in curves.to_pylist():
        if row["curve"] in ("probe", "shuffle") and row["metric"] == "accuracy":
            say(
                f"layer {row['layer']:>2}  {row['curve']:<8}{row['value']:.3f}  [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            )
    say(f"figure: {folder / 'figure.html'}")


if __name__ == "__main__":
    main()
