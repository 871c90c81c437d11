"""A Python that starts in no time: forked from one that has imported torch, transformers, nnsight, datasets and this package.

`start` begins the process that forks and writes a script that stands in for ``sys.executable``: ``[script, "-m", module, ...]``,
``[script, "-c", code, ...]`` or ``[script, "file.py", ...]``. The script hands its files, arguments, environment and folder over,
passes signals on, and ends as the forked process ended; if the script is killed, so is the forked process.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

IMPORTED = (
    "nnsight", "datasets", "plotly.graph_objects", "pyarrow.parquet", "clsinterp.cli", "clsinterp.views.lens",
    "clsinterp.runs.run", "clsinterp.runs.demo", "clsinterp.runs.engines.worker_process", "clsinterp.vision_model",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("vit", "deit", "beit", "dinov2")),
    "pip._internal.commands.download",  # last: it takes Python's distutils, and torch with Triton takes setuptools' before it
)  # fmt: skip
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLIENT = """#!{python} -ISu
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
ignored = [n for n in {passed_on} if signal.getsignal(n) is signal.SIG_IGN]
signal.pthread_sigmask(signal.SIG_BLOCK, {passed_on})
asked = {{"arguments": sys.argv, "environment": dict(os.environ), "folder": os.getcwd(), "ignored": ignored}}
asked = json.dumps(asked).encode()
socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
server.sendall(asked)
for stream in (0, 1, 2):
    os.close(stream)
child = int.from_bytes(server.recv(4), "big")
for number in set({passed_on}) - set(ignored):
    signal.signal(number, lambda number, frame: os.kill(child, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {passed_on})
status = int.from_bytes(server.recv(4), "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def start(folder: Path) -> tuple[Path, subprocess.Popen]:
    """Begin the process that forks; returns the script, and the process, which ends with its stdin."""
    address, script = folder / "socket", folder / "python"
    passed_on = [int(number) for number in PASSED_ON]
    script.write_text(CLIENT.format(python=sys.executable, address=str(address), passed_on=passed_on))
    script.chmod(0o755)
    environment = {**{k: v for k, v in os.environ.items() if k != "COLUMNS"}, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, __file__, address, script], stdin=pipe, stdout=pipe, env=environment, start_new_session=True
    )
    assert process.stdout.readline() == b"ready\n"
    return script, process


def serve(address: str, script: str) -> None:
    """Fork a process for every connection until stdin is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    os.fsync = lambda descriptor: None  # as in conftest
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a keeper ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                keep(connection, script)
                os._exit(0)
            connection.close()


def keep(connection: socket.socket, script: str) -> None:
    """Fork what a connection asks for and say how it ended; kill it when nobody waits for that any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    asked = json.loads(connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    child = os.fork()
    if child == 0:
        connection.close()
        become(asked, streams, script)
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    connection.sendall(child.to_bytes(4, "big"))
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def become(asked: dict, streams: list[int], script: str) -> None:
    """The process that was asked for, from here to its end."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setsid()
    for number in PASSED_ON:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else default)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for name, stream in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, open(stream, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115
    sys.executable = script
    _, *words = asked["arguments"]
    kind, *more = words[words[0] == "-u" :]  # which it is anyhow
    status = 0
    try:
        if kind == "-m":
            sys.argv = more
            if not hasattr(sys.modules.get(more[0]), "__path__"):
                sys.modules.pop(more[0], None)  # it is run, as if it had not been imported
            runpy.run_module(more[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *more[1:]]
            exec(compile(more[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [kind, *more]
            sys.path.insert(0, str(Path(kind).resolve().parent))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(*sys.argv[1:])
