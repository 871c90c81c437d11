"""Train the small checkpoints of the zoo, one after the other: all of them, or those named with ``--only``.

Run it again after an interruption: a finished model is skipped, an unfinished one goes on from its last epoch.

    python experiments/zoo/train_all.py --out clsinterp/zoo
    python experiments/zoo/train_all.py --out clsinterp/zoo --only vit,deit
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import common

MODELS = ("vit", "deit", "beit", "dinov2", "clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="each model goes to OUT/NAME")
    parser.add_argument("--only", default=",".join(MODELS), help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument(
        "--workdir", type=Path, help="each model's state, log and facts go to WORKDIR/NAME; default OUT.work"
    )
    parser.add_argument("--data", type=Path, default=common.FASHION, help="folder with the four IDX files")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = [name.strip() for name in args.only.split(",") if name.strip()]
    if unknown := set(names) - set(MODELS):
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}.")
    workdir = args.workdir or args.out.with_name(args.out.name + ".work")

    for name in names:
        out, work = args.out / name, workdir / name
        facts_file = work / "facts.json"
        if facts_file.exists() and (out / "config.json").exists():
            print(f"{name}: done before, skipped; remove {facts_file} to export it again")
        else:
            started = time.time()
            print(f"{name}: starts", flush=True)
            script = Path(__file__).with_name(f"train_{name}.py")
            options = {"--out": out, "--workdir": work, "--data": args.data, "--seed": args.seed}
            words = [str(word) for pair in options.items() for word in pair]
            if subprocess.run([sys.executable, str(script), *words], check=False).returncode != 0:
                sys.exit(f"{name} failed; its log is {work / 'log.jsonl'}. Start the same command again to go on.")
            print(f"{name}: {(time.time() - started) / 60:.1f} minutes", flush=True)

    for name in names:
        facts = json.loads((workdir / name / "facts.json").read_text())
        print(f"{name:8} test accuracy {facts['test_accuracy']:.4f} after {facts['minutes']} minutes of training")


if __name__ == "__main__":
    main()
