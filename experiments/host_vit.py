"""Host vision transformers on an NDIF server of your own, on this machine's CPU and loopback only.

    python3.12 -m venv ndif
    ndif/bin/pip install torch torchvision "ndif[api,ray]==0.1.2" "nnsight==0.8.1" "transformers==5.23" "moto[server]"
    ndif/bin/python experiments/host_vit.py google/vit-base-patch16-224 [MORE...] [--port 8001] [--task TASK]

wants `redis-server` on the path, prints a line for each model that is ready, and serves until Ctrl-C. MODEL is a hub id or a
folder; `-` reads more of them from standard input, a line each (``MODEL`` or ``MODEL TASK``), and serves until it ends.

NDIF's own parts run as they are: its API and queue, its controller on ray, redis. Two are replaced, as there is no GPU: the
actor that holds a model, which otherwise asks CUDA for its place, and the object store for large results, which is moto.
docs/remote.md has the way with a GPU, by NDIF's own command line.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED = ("ndif", "ray", "fastapi", "moto", "torchvision")
CONTROLLER = "ndif.services.ray.deployments.controller.controller"
WRAPPER = "nnsight.modeling.transformers.TransformersModel"
PATIENCE = 600  # seconds for a service to answer
BUDGET = 2**40  # bytes of GPU that the controller thinks it shares out: models lie in the CPU's memory


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(process: subprocess.Popen, log: Path, ready: Callable[[], bool]) -> str:
    """Wait until `ready()`; returns what is wrong where a service ends, or is never ready, with the last line of its log."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
            state = f"ended ({process.returncode})" if process.poll() is not None else f"not ready in {PATIENCE} s"
            return f"{state}; the end of its log: {''.join(last) or 'nothing'}"
        time.sleep(1)
    return ""


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def connected(port: int) -> bool:
    """Whether the API has found its controller."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=60) as answer:
            return "deployments" in json.load(answer)
    except OSError:
        return False


@contextlib.contextmanager
def serving(port: int) -> Iterator[None]:
    """NDIF on loopback: redis, store, ray with the controller, API on `port`; all of it ended on the way out."""
    redis, store, head, client, agent, export, board = (free_port() for _ in range(7))
    python = sys.executable
    with tempfile.TemporaryDirectory(prefix="ndif") as temporary, contextlib.ExitStack() as ends:
        folder = Path(temporary)
        env = {
            **os.environ,
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).resolve().parent),
            "NDIF_REDIS_URL": f"redis://127.0.0.1:{redis}",
            "NDIF_OBJECT_STORE_URL": f"http://127.0.0.1:{store}",
            "NDIF_RAY_ADDRESS": f"ray://127.0.0.1:{client}",
            "NDIF_DEFAULT_MODEL_ACTOR_CLASS": "ndif_on_cpu.OnCpu",
            "NDIF_DEFAULT_DTYPE": "float32",
            "NDIF_STATUS_TTL_S": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "RAY_AUTH_MODE": "token",  # as ray 2.60 has it by default; all parts get the token from here
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300",
            "RAY_worker_niceness": "0",  # the model works in one of its workers
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # ray's own switch for a cluster that stays on 127.0.0.1
            "GRPC_ENABLE_FORK_SUPPORT": "0",  # as NDIF's own start script has it: ray's client server forks
        }
        os.environ.update({k: v for k, v in env.items() if k.startswith(("NDIF_", "RAY_", "GRPC_"))})

        def start(what: str, *command: object, ready: Callable[[], bool], tries: int = 1) -> None:
            log = folder / f"{what}.log"
            for _ in range(tries):
                with log.open("w") as out:
                    process = subprocess.Popen(
                        [str(part) for part in command],
                        cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                    )  # fmt: skip
                ends.callback(stop, process)
                wrong = wait_for(process, log, ready)
                if not wrong:
                    return
            sys.exit(f"{what}: {wrong}")

        start(
            "redis", "redis-server", "--port", redis, "--bind", "127.0.0.1", "--save", "", ready=lambda: listens(redis)
        )
        start("store", python, "-m", "moto.server", "-H", "127.0.0.1", "-p", store, ready=lambda: listens(store))
        resources = json.dumps({"head": 10, "cuda_memory_bytes": BUDGET, "cpu_memory_bytes": BUDGET})
        start(
            "ray", "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={head}",
            f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", f"--dashboard-port={board}",
            f"--metrics-export-port={export}", "--dashboard-host=127.0.0.1", "--num-cpus=2", "--num-gpus=1",
            f"--resources={resources}", f"--temp-dir={folder / 'ray'}", "--object-store-memory=100000000",
            ready=lambda: listens(client) and listens(board), tries=3,  # it gives itself 30 s, too few on a busy machine
        )  # fmt: skip
        env["RAY_ADDRESS"] = f"127.0.0.1:{head}"  # or it would take any ray of this machine
        done = subprocess.run([python, "-m", CONTROLLER], env=env, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"controller: ended ({done.returncode}); {done.stderr.strip().splitlines()[-1:]}")
        del env["RAY_ADDRESS"]
        start(
            "api", python, "-m", "gunicorn", "--config", "python:ndif.services.api.gunicorn_conf", "--bind",
            f"127.0.0.1:{port}", "--no-control-socket", "ndif.services.api.app:app", ready=lambda: connected(port),
        )  # fmt: skip
        yield


def stop(process: subprocess.Popen) -> None:
    """End a service and what it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)


def host(name: str, task: str) -> str:
    """Deploy `name` on the server; returns why it could not be, or nothing."""
    from ndif.cli.lib.deploy import deploy

    key = f"{WRAPPER}:{json.dumps({'repo_id': name, 'revision': None, 'task': task})}"
    # Its size is not asked of the hub: there is no GPU it would have to fit on.
    done = deploy([{"checkpoint": name, "model_key": key, "dtype": "float32", "size_bytes": 1}])
    return "; ".join(str(entry["error"]) for entry in done["deployments"] if entry["error"])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hub id or folder; - reads them from standard input")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--task", default="image-classification", help="part of the name that requests are sent by")
    asked = parser.parse_args()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(f"{sys.executable} has no {', '.join(missing)}; docs/remote.md has the line that installs them.")
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not on the path; install it (Debian and Ubuntu: apt-get install redis-server).")
    if listens(asked.port):
        sys.exit(f"port {asked.port} of 127.0.0.1 is taken; another one is given by --port.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    named = [(name, asked.task) for name in asked.models if name != "-"]
    with contextlib.suppress(KeyboardInterrupt), serving(asked.port):
        lines = sys.stdin if "-" in asked.models else iter(lambda: signal.pause(), 0)
        for name, task in named:
            say(name, task, asked.port)
        for line in lines:
            name, _, task = line.strip().partition(" ")
            say(name, task or asked.task, asked.port)


def say(name: str, task: str, port: int) -> None:
    """Host a model and print whether that went well."""
    wrong = host(name, task)
    print(f"failed {name}: {wrong}" if wrong else f"hosted {name} at http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    main()
