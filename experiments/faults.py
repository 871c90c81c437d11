"""The fault suite: kills, workers that die, shards in a wrong order, full disks. Each must end with the bytes of a calm run.

One undisturbed run is the measure. Then, each with the same command:

- `local`: SIGKILL at a random moment, `--resume`, SIGKILL again, and so on; the last resume is left alone.
- `processes`: the same with two worker processes; the kill hits the parent or a worker, in turn.
- `shards`: N parts in a random order, `--stage train` first, then all again in another order.
- `disk full`: the run folder lies on a disk of 5 sizes too small; the run must say so and end with status 1; the disk is then
  made larger and the run resumed. Needs Linux and a user that may mount a tmpfs (root); elsewhere it is left out.

It takes about 40 times one run. The table goes to docs/faults.md.

    python experiments/faults.py --out docs/faults.md
    python experiments/faults.py --out faults.md --tries 2 --limit 60
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TABLES = ("images.parquet", "curves.parquet", "probes.safetensors", "figure.html")
SHARES = (0.05, 0.25, 0.5, 0.7, 0.9)  # of the room that a calm run takes at most
ROOMY = 4.0


@dataclass
class Outcome:
    """One row of the table."""

    fault: str
    tries: int
    hit: int  # how often the fault came in time
    well: int  # how often what followed ended as it should
    same: bool  # whether the tables are those of the calm run, to the byte


class Runs:
    """The one command, into any folder."""

    def __init__(self, model: str, data: str, limit: int, root: Path) -> None:
        self.root = root
        self.words = [sys.executable, "-m", "clsinterp", "run", model, "--data", data, "--limit", str(limit)]
        self.words += ["--batch-size", "16", "--workers", "0", "--quiet"]

    def start(self, out: Path, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.words, "--out", str(out), *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip

    def whole(self, out: Path, *more: str) -> tuple[int, str]:
        child = self.start(out, *more)
        _, said = child.communicate()
        return child.returncode, said


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES if (out / name).is_file()}


def is_done(out: Path) -> bool:
    return (out / "run.json").exists() and not (out / ".work/request.json").exists()


def kills(runs: Runs, tries: int, calm: dict[str, bytes], seconds: float, engine: str) -> Outcome:
    """SIGKILL and resume, `tries` times; a run that got through is begun again."""
    draw, out, hit, well = random.Random(engine), runs.root / engine, 0, 0
    more = ("--resume", "--engine", engine, *(("-j", "2") if engine == "processes" else ()))
    for k in range(tries):
        child = runs.start(out, *more)
        time.sleep(draw.uniform(0.2, 1.0) * seconds)
        victims = workers(child.pid) if engine == "processes" and k % 2 else []
        victim = draw.choice(victims) if victims else child.pid
        if child.poll() is None:
            hit += 1
            os.kill(victim, signal.SIGKILL)
        _, said = child.communicate()
        # A dead worker is started again and the command succeeds; a dead parent leaves a folder to resume.
        well += "Traceback" not in said and child.returncode in (0, -signal.SIGKILL)
        if is_done(out):
            well -= contents(out) != calm
            shutil.rmtree(out)
    code, _ = runs.whole(out, *more)
    return Outcome(f"{engine}: SIGKILL", tries, hit, well, code == 0 and contents(out) == calm)


def workers(pid: int) -> list[int]:
    """Processes that `pid` has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def shards(runs: Runs, n: int, calm: dict[str, bytes]) -> Outcome:
    """All parts of `n` in two random orders."""
    out, draw, well = runs.root / "shards", random.Random(0), 0
    order = list(range(1, n + 1))
    for stage in (("--stage", "train"), ()):
        draw.shuffle(order)
        well += sum(runs.whole(out, "--shard", f"{i}/{n}", *stage)[0] == 0 for i in order)
    return Outcome(f"{n} shards in wrong order", 2 * n, 2 * n, well, contents(out) == calm)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of `size` bytes at `folder`; the value gives it another size.

    Raises:
        OSError: this user may not mount one.
    """
    folder.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "clsinterp-faults", str(folder)], capture_output=True
        )
        if done.returncode:
            raise OSError(done.stderr.decode().strip())

    mount(f"size={size}")
    try:
        yield lambda new: mount(f"remount,size={new}")
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def most_used(runs: Runs) -> int:
    """Room that a calm run takes on its disk at most."""
    most, over = 0, threading.Event()
    with disk(runs.root / "roomy", 4 << 30):

        def look() -> None:
            nonlocal most
            while not over.wait(0.02):
                most = max(most, shutil.disk_usage(runs.root / "roomy").used)

        looking = threading.Thread(target=look)
        looking.start()
        runs.whole(runs.root / "roomy/r")
        over.set()
        looking.join()
    return most


def full_disks(runs: Runs, calm: dict[str, bytes]) -> Outcome:
    """A run on each disk that is too small, which is then made larger."""
    most, hit, well, same = most_used(runs), 0, 0, True
    for share in SHARES:
        here = runs.root / f"disk-{share}"
        with disk(here, int(share * most)) as resize:
            code, said = runs.whole(here / "r")
            hit += code != 0
            well += code == 1 and "the disk is full" in said and "Traceback" not in said
            resize(int(ROOMY * most))
            code, said = runs.whole(here / "r", "--resume")
            same &= code == 0 and contents(here / "r") == calm
    return Outcome(f"disk full at {len(SHARES)} sizes", len(SHARES), hit, well, same)


def markdown(found: list[Outcome], left_out: str, what: str) -> str:
    lines = [
        "# Faults\n",
        f"Written by `experiments/faults.py` from {what}. Each row ends with a resume that is left",
        "alone; its tables, probes and figure are compared byte by byte with those of one undisturbed run.\n",
        "| fault | tries | came in time | ended as it should | the calm run's bytes |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| {o.fault} | {o.tries} | {o.hit} | {o.well} | {'yes' if o.same else 'NO'} |" for o in found]
    return "\n".join(lines) + "\n" + (f"\n{left_out}\n" if left_out else "")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/faults.md"), help="the table")
    parser.add_argument("--model", default="zoo/vit")
    parser.add_argument("--data", default="zoo")
    parser.add_argument("--limit", type=int, default=400, help="train and test images of a run")
    parser.add_argument("--tries", type=int, default=20, help="kills of each kind, and shards")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="clsinterp-faults-") as root:
        runs = Runs(args.model, args.data, args.limit, Path(root))
        started = time.monotonic()
        code, said = runs.whole(runs.root / "calm")
        if code:
            sys.exit(f"the calm run failed: {said}")
        seconds, calm = time.monotonic() - started, contents(runs.root / "calm")
        found, left_out = [], ""
        for engine in ("local", "processes"):
            found.append(kills(runs, args.tries, calm, seconds, engine))
            print(found[-1], flush=True)
        found.append(shards(runs, args.tries, calm))
        print(found[-1], flush=True)
        try:
            found.append(full_disks(runs, calm))
            print(found[-1], flush=True)
        except OSError as error:
            left_out = f"Full disks were not tried: this user may not mount one ({error})."
    what = f"{args.model} on {args.limit} train and test images of {args.data}"
    args.out.write_text(markdown(found, left_out, what))
    if not all(o.same and o.well == o.tries for o in found):
        sys.exit("a fault left its mark; see the table.")


if __name__ == "__main__":
    main()
