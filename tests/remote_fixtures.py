"""A running double of an NDIF server, or a real one, for the tests of one session."""

import json
import os
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx
import server_venv
import tiny
import torch
import transformers as hf

import clsinterp
from clsinterp.models.source import ZOO
from clsinterp.remote.server import Server
from clsinterp.vision_model import VisionModel

KEY = "0f5b2c1e-not-to-be-seen-4a77"
DEEP = {**tiny.BASE, "num_hidden_layers": 12}
TWELVE = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**DEEP, **tiny.LABELS)),
    "dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**DEEP, **tiny.LABELS, mlp_ratio=2)),
}


def save_twelve(family: str, folder: Path) -> Path:
    """A random model of 12 blocks with an image processor."""
    torch.manual_seed(3)
    model = TWELVE[family]().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "token" in name or "embedding" in name:
                p.normal_(0, 0.3 if p.ndim == 2 else 0.5)
    model.save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


@dataclass
class Hosting:
    """A running server.

    Attributes:
        url: where it listens.
        root: it hosts checkpoint folders in here.
        slack: how far numbers from there may be from those of here.
    """

    url: str
    root: Path
    slack: ClassVar[float] = 0.0

    def folder(self, name: str) -> Path:
        """A hosted checkpoint: a family of `tiny`, ``vit-12``, ``dinov2-12``, or a zoo name that ships."""
        if name.startswith("zoo/"):
            return ZOO / name.removeprefix("zoo/")
        where = self.root / name
        if not where.exists():
            family = name.removesuffix("-12")
            save_twelve(family, where) if family != name else tiny.save(family, where)
        return where

    def model(self, name: str, **options) -> VisionModel:
        """The model, remote and without much patience."""
        patient = {"tries": 3, "backoff": 0.01, "patience": 20.0}
        return VisionModel(str(self.folder(name)), remote=Server(self.url, **(patient | options)))

    def received(self, n: int) -> list[dict]:
        """What the server knows of the `n` requests since the last time; nothing where it does not say."""
        return []


@dataclass
class Double(Hosting):
    """The running double: it has faults on demand, and says what it received."""

    def fail(self, *faults: dict) -> None:
        """From now on these faults, see ``ndif_double.py``; without any, none."""
        httpx.post(f"{self.url}/double/faults", content=json.dumps([{"times": 1, **f} for f in faults]))

    def log(self) -> list[dict]:
        """The requests since the last call."""
        return httpx.get(f"{self.url}/double/log").json()

    def received(self, n: int) -> list[dict]:
        log = self.log()
        assert len(log) == n
        return log


@dataclass
class Real(Hosting):
    """A running NDIF server, by experiments/host_vit.py, which hosts a checkpoint when it is first asked for.

    Attributes:
        process: the script; it reads checkpoints from its input, and ends with it.
        hosted: folders so far.
    """

    slack: ClassVar[float] = 1e-5  # its torch may be another build
    process: subprocess.Popen
    hosted: set[Path] = field(default_factory=set)

    def folder(self, name: str) -> Path:
        where = super().folder(name)
        if where not in self.hosted:
            key = VisionModel(str(where), remote=Server(self.url)).to_model_key()
            task = json.loads(key.partition(":")[2])["task"]
            self.process.stdin.write(f"{where} {task}\n")
            self.process.stdin.flush()
            said = self.process.stdout.readline()
            assert said.startswith(f"hosted {where} "), said
            self.hosted.add(where)
        return where

    def model(self, name: str, **options) -> VisionModel:
        return super().model(name, **({"patience": 300.0} | options))


def start(folder: Path, key: str = KEY) -> tuple[Double, subprocess.Popen]:
    """Start a double in an environment of its own, away from this repository."""
    root = folder / "hosted"
    root.mkdir()
    python = server_venv.make(folder / "venv")
    script = Path(__file__).with_name("ndif_double.py")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NDIF_API_KEY")}
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    shipped = Path(clsinterp.__file__).parent / "zoo"
    errors = (folder / "stderr").open("w")
    process = subprocess.Popen(
        [python, script, root, shipped, key], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    port = process.stdout.readline().strip()
    assert port, (folder / "stderr").read_text()
    return Double(f"http://127.0.0.1:{port}", root), process


def start_real(folder: Path, python: str) -> tuple[Real, subprocess.Popen]:
    """Start a real NDIF, installed beside `python`, on loopback."""
    root = folder / "hosted"
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "experiments" / "host_vit.py"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NDIF_API_KEY")}
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [python, script, "-", "--port", str(port)],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Real(f"http://127.0.0.1:{port}", root, process), process
