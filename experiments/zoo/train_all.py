"""Train the small checkpoints of the zoo: all of them, or those named with ``--only``.

Each runs on one thread, so that its numbers repeat to the last digit, and as many run at a time as there are cores. Run it
again after an interruption: a finished model is skipped, an unfinished one goes on from its last epoch.

    python experiments/zoo/train_all.py --out clsinterp/zoo
    python experiments/zoo/train_all.py --out clsinterp/zoo --only vit,deit
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common

MODELS = ("dinov2", "deit", "beit", "vit", "clip")  # the longest first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="each model goes to OUT/NAME")
    parser.add_argument("--only", default=",".join(MODELS), help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument(
        "--workdir", type=Path, help="each model's state, log and facts go to WORKDIR/NAME; default OUT.work"
    )
    parser.add_argument("--data", type=Path, default=common.FASHION, help="folder with the four IDX files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="models trained at a time")
    args = parser.parse_args()
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := set(names) - set(MODELS):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}.")
    workdir = args.workdir or args.out.with_name(args.out.name + ".work")

    def train(name: str) -> bool:
        out, work = args.out / name, workdir / name
        if (work / "facts.json").exists() and (out / "config.json").exists():
            print(f"{name}: done before, skipped; remove {work / 'facts.json'} to train it again", flush=True)
            return True
        started = time.time()
        print(f"{name}: starts; its log is {work / 'log.jsonl'}", flush=True)
        script = Path(__file__).with_name(f"train_{name}.py")
        options = {"--out": out, "--workdir": work, "--data": args.data, "--seed": args.seed}
        words = [str(word) for pair in options.items() for word in pair]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, str(script), *words], check=False, env=one_thread).returncode == 0
        print(f"{name}: {'done' if done else 'FAILED'} after {(time.time() - started) / 60:.1f} minutes", flush=True)
        return done

    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(train, names))
    if not all(done):
        failed = [name for name, ok in zip(names, done, strict=True) if not ok]
        sys.exit(f"{', '.join(failed)} failed. Start the same command again to go on.")
    for name in names:
        facts = json.loads((workdir / name / "facts.json").read_text())
        print(f"{name:8} test accuracy {facts['test_accuracy']:.4f} after {facts['minutes']} minutes of training")


if __name__ == "__main__":
    main()
