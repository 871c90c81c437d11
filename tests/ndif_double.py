"""A stand-in for an NDIF server on loopback, speaking the protocol of nnsight 0.8.1, with faults on demand.

    python ndif_double.py ROOT... KEY

hosts every checkpoint folder under the roots, wants KEY as the API key (an empty one: no key), and prints its port. It executes
what it is sent, so it listens on 127.0.0.1 only. Run it with a Python that has no clsinterp: what a request needs of it has
to come with the request.

Beside the protocol there is POST /double/faults with a JSON list of {"kind": ..., "times": n}, and GET /double/log: what was
received since the last time.
"""

import base64
import hashlib
import importlib.util
import io
import json
import linecache
import queue
import re
import struct
import sys
import threading
import time
import traceback
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio._core._sockets
import anyio.abc  # noqa: F401  (before nnsight, which puts .save on every object and so breaks classes anyio makes later)
import torch
import zstandard
from nnsight.intervention.backends.remote import RemoteBackend  # noqa: F401  (the client half; proves the version fits)
from nnsight.modeling import huggingface
from nnsight.modeling.mixins.remotable import Remotable
from nnsight.ndif import get_local_env
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel, Status
from nnsight.tracing.globals import BLOCKS, SOURCES
from nnsight.tracing.tracer import _saves, dec, inc
from transformers import AutoImageProcessor

NOT_HERE = ("clsinterp", "einops", "jaxtyping", "datasets", "plotly")
INLINE = 20_000  # bytes; a larger result waits at a URL
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Double:
    """State of the server: models, jobs, open sockets, results, faults, log."""

    def __init__(self, roots: list[Path], key: str) -> None:
        self.roots, self.key = roots, key
        self.models, self.sockets, self.results, self.responses = {}, {}, {}, {}
        self.jobs: queue.Queue = queue.Queue()
        self.faults: list[dict] = []
        self.log: list[dict] = []
        threading.Thread(target=self.work, daemon=True).start()

    def fault(self, kind: str) -> dict | None:
        for fault in self.faults:
            if fault["kind"] == kind and fault.get("skip", 0) > 0:
                fault["skip"] -= 1
            elif fault["kind"] == kind and fault["times"] > 0:
                fault["times"] -= 1
                return fault
        return None

    def hosted(self) -> dict[str, str]:
        """repo id (a folder here) -> class named in its config."""
        configs = [config for root in self.roots for config in root.glob("**/config.json")]
        return {str(config.parent): json.loads(config.read_text())["architectures"][0] for config in configs}

    def work(self) -> None:
        while True:
            job = self.jobs.get()
            for position in range((self.fault("slow-queue") or {}).get("messages", 0), 0, -1):
                self.say(job, Status.QUEUED, f"Moved to position {position} in Queue.")
                time.sleep(0.1)
            time.sleep((self.fault("hang") or {}).get("seconds", 0))
            try:
                self.run(job)
            except Exception:
                self.say(job, Status.ERROR, traceback.format_exc())

    def run(self, job: dict) -> None:
        request: RequestModel = job["request"]
        repo = json.loads(request.model_key.split(":", 1)[1])["repo_id"]
        if repo not in self.hosted():
            return self.say(job, Status.ERROR, f"Could not deploy this model. {repo} is not a repository known here.")
        if fault := self.fault("error"):
            return self.say(job, Status.ERROR, fault["text"].replace("KEY", self.key))
        model = self.model(request.model_key, repo)
        self.say(job, Status.RUNNING, "Your job has started running.")
        model._remoteable_set_env(request.env)
        before = [dict(cache) for cache in (linecache.cache, SOURCES, BLOCKS)]
        try:
            tracer = RequestModel.deserialize(
                job["blob"], model._remoteable_persistent_objects(), compress=request.compress
            )
            inc()
            try:
                tracer.execute(tracer.info.code)
                saves = _saves()
                saved = {k: v for k, v in tracer.info.frame.f_locals.items() if id(v) in saves}
            finally:
                dec()
        finally:
            for cache, old in zip((linecache.cache, SOURCES, BLOCKS), before, strict=True):
                cache.clear()
                cache.update(old)
            model.interleaver.cancel()
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        content = buffer.getvalue()
        if request.compress:
            content = zstandard.ZstdCompressor(level=6).compress(content)
        job["entry"]["down"] = len(content)
        if self.fault("truncate"):
            content = content[: len(content) // 2]
        if self.fault("drop"):
            return self.hang_up(job)
        lose = self.fault("lose")
        if lose or len(content) > INLINE or not request.session_id:
            if not lose:
                self.results[job["id"]] = content
            content = f"{job['base']}/results/{job['id']}"
        self.say(job, Status.COMPLETED, "Your job has been completed.", content)

    def model(self, key: str, repo: str):
        if key not in self.models:
            huggingface._ID_CACHE[repo] = repo
            processor = AutoImageProcessor.from_pretrained(repo)
            self.models[key] = Remotable.from_model_key(key, dispatch=True, image_processor=processor)
        return self.models[key]

    def say(self, job: dict, status: Status, description: str, data=None) -> None:
        response = ResponseModel(id=job["id"], status=status, description=description, data=data)
        if not job["request"].session_id:
            self.responses[job["id"]] = response.model_dump_json()
        elif socket := self.sockets.get(job["request"].session_id):
            binary = isinstance(data, bytes)
            send_frame(socket, 2 if binary else 1, response.pickle() if binary else response.model_dump_json().encode())

    def hang_up(self, job: dict) -> None:
        if socket := self.sockets.pop(job["request"].session_id, None):
            socket.shutdown(2)


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    double: Double

    def log_message(self, *args) -> None:
        pass

    def reply(self, status: int, body, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self) -> bool:
        """Whether the request was turned away: down for a moment, or the wrong key."""
        key = self.headers.get("ndif-api-key", "")
        if self.double.fault("unavailable"):
            self.reply(503, {"detail": "Service temporarily unavailable: compute backend is reconnecting."})
        elif self.double.key and key != self.double.key:
            self.reply(401, {"detail": f"Missing or invalid API key: '{key}'."})
        else:
            return False
        return True

    def do_GET(self) -> None:
        double, path = self.double, self.path
        if path == "/subscribe":
            if not self.refuse():
                self.subscribe()
        elif path == "/ping":
            self.reply(200, "pong")
        elif path == "/env":
            env = get_local_env()
            env["packages"] |= (double.fault("versions") or {}).get("packages", {})
            self.reply(200, env)
        elif path == "/status":
            entries = dict(entry_of(*hosted, double.fault("spelled-out")) for hosted in double.hosted().items())
            self.reply(200, {"deployments": entries, "cluster": {}})
        elif path == "/double/log":
            entries, double.log = double.log, []
            self.reply(200, entries)
        elif path.startswith("/response/") and (found := double.responses.get(path.rpartition("/")[2])):
            self.reply(200, found.encode())
        elif path.startswith("/results/") and (content := double.results.pop(path.rpartition("/")[2], None)):
            self.reply(200, content, "application/octet-stream")
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/double/faults":
            self.double.faults = json.loads(body)
            self.reply(200, {})
        elif self.path != "/request":
            self.reply(404, {"detail": "Not Found"})
        elif not self.refuse():
            self.take(body)

    def take(self, body: bytes) -> None:
        if (limit := self.double.fault("too-large")) and len(body) > limit["bytes"]:
            return self.reply(413, {"detail": "Request body is too large"})
        boundary = re.search(r"boundary=\"?([^\";]+)", self.headers["Content-Type"])[1].encode()
        parts = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            parts[re.search(rb'name="(\w+)"', head)[1].decode()] = content[:-2]
        request = RequestModel.model_validate_json(parts["data"])
        entry = {"model_key": request.model_key, "up": len(parts["blob"]), "headers": sorted(self.headers)}
        plain = parts["blob"]
        if request.compress:
            plain = zstandard.ZstdDecompressor().decompress(plain)
        entry["plain"] = len(plain)
        entry["byte_code"] = b"CodeType" in plain or b"_make_function" in plain
        entry["key_inside"] = bool(self.double.key) and self.double.key.encode() in plain + parts["data"]
        entry["names"] = [n for n in NOT_HERE if importlib.util.find_spec(n) or n in sys.modules]
        self.double.log.append(entry)
        base = f"http://{self.headers['Host']}"
        job = {"id": str(uuid.uuid4()), "request": request, "blob": parts["blob"], "base": base, "entry": entry}
        received = ResponseModel(id=job["id"], status=Status.RECEIVED, description="Your job has been received.")
        if not request.session_id:
            self.double.responses[job["id"]] = received.model_dump_json()
        self.reply(200, received.model_dump_json().encode())
        self.double.jobs.put(job)

    def subscribe(self) -> None:
        accept = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + MAGIC).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.end_headers()
        session = str(uuid.uuid4())
        self.double.sockets[session] = self.connection
        send_frame(self.connection, 1, json.dumps({"session_id": session}).encode())
        head = self.rfile.read(2)
        while len(head) == 2 and head[0] & 15 != 8:  # a client sends nothing but pings and, last, a close frame
            self.rfile.read((head[1] & 127) + 4)
            head = self.rfile.read(2)
        self.double.sockets.pop(session, None)
        if len(head) == 2:
            send_frame(self.connection, 8, b"")
        self.close_connection = True


def entry_of(repo: str, hf_class: str, spelled_out: dict | None) -> tuple[str, dict]:
    """A deployment in /status: as NDIF 0.1.2 says it, the model in the entry's key only; or spelled out in the entry."""
    task = "image-classification" if "Classification" in hf_class else "image-feature-extraction"
    names = {"repo_id": repo, "revision": None, "task": task}
    key = f"nnsight.modeling.transformers.TransformersModel:{json.dumps(names)}"
    state = {"application_state": "RUNNING"}
    if spelled_out:
        return repo, {**state, "deployment_level": "HOT", "model_key": key, **names}
    return f"{hashlib.blake2b(key.encode(), digest_size=3).hexdigest()}:ModelActor:{key}", state


def send_frame(socket, kind: int, payload: bytes) -> None:
    n = len(payload)
    size = struct.pack("!B", n) if n < 126 else struct.pack("!BH", 126, n) if n < 65536 else struct.pack("!BQ", 127, n)
    socket.sendall(bytes([128 | kind]) + size + payload)


def main() -> None:
    present = [name for name in NOT_HERE if importlib.util.find_spec(name)]
    assert not present, f"this Python has {present}: it could not show that a request brings all it needs"
    torch.set_num_threads(1)
    *roots, key = sys.argv[1:]
    Handler.double = Double([Path(root) for root in roots], key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
