"""One trace as one request: sent, waited for, sent again where that can help, and counted."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import torch
import websocket
import zstandard

from clsinterp.remote.faults import Fault, failed, lost, of_http, silent
from clsinterp.remote.server import Server
from clsinterp.remote.shipping import serialize
from clsinterp.remote.unstable import RemoteBackend, RemoteError, RequestModel, ResponseModel, Status

logger = logging.getLogger(__name__)
CONNECT, READ, TICK = 10.0, 600.0, 5.0  # seconds: to connect, for one answer over HTTP, between looks at the clock
TELL_AFTER = 30.0  # seconds of waiting before the first word about it; then at twice that, and so on


class Backend(RemoteBackend):
    """nnsight's remote backend with faults told apart, retries, and a count of bytes.

    Args:
        model_key: what the server knows the model by.
        server: where, and how patiently.
        env: nnsight's per-request settings of the model.
        **options: those of nnsight's backend for jobs that are polled for (``blocking``, ``job_id``).
    """

    def __init__(self, model_key: str, server: Server, env: dict[str, Any], **options: Any) -> None:
        super().__init__(model_key, host=server.url, api_key=server.key, env=env, **options)
        self.server = server
        self.display.enabled = False  # it writes to stdout, which belongs to the command

    def request(self, request: RequestModel, tracer: Any) -> dict[str, Any]:
        """Send `tracer` and return what its body saved.

        Raises:
            RequestError: the server refused it, or code of this package did there.
            RunError: a fault that lasted, or code that failed there; the server's traceback is a note of the exception.
        """
        blob = self._serialize(tracer)
        for attempt in range(1, self.server.tries + 1):
            try:
                result = self._attempt(request, blob)
            except Fault as fault:
                if not fault.passing or attempt == self.server.tries:
                    raise fault.error from None
                wait = self.server.backoff * 2 ** (attempt - 1)
                logger.warning("%s Trying again in %g s (%d of %d).", fault, wait, attempt, self.server.tries - 1)
                self.server.traffic.retries += 1
                time.sleep(wait)
            else:
                self.server.traffic.requests += 1
                return result
        raise AssertionError("the last attempt either returns or raises")

    def __call__(self, tracer: Any = None) -> Any:
        """Run `tracer`; of a job that is polled for (``blocking=False``): send it, then look whether it is done."""
        try:
            return super().__call__(tracer)
        except Fault as fault:  # one of polling, which the caller repeats
            raise fault.error from None

    def _serialize(self, tracer: Any) -> bytes:
        return serialize(tracer, self.compress)

    def _attempt(self, request: RequestModel, blob: bytes) -> dict[str, Any]:
        try:
            connection = websocket.create_connection(
                f"{self.server.websocket_url}/subscribe", header=self.server.headers, timeout=CONNECT
            )
        except (OSError, websocket.WebSocketException) as error:
            raise of_http(self.server, error) from error
        try:
            request.session_id = self._session(connection)
            response = self._send(request, blob)
            return self._wait(connection, response)
        finally:
            connection.close()

    def _session(self, connection: Any) -> str:
        try:
            return json.loads(connection.recv())["session_id"]
        except (OSError, websocket.WebSocketException, ValueError, KeyError) as error:
            raise of_http(self.server, error) from error

    def _post(self, request: RequestModel, blob: bytes) -> ResponseModel:
        self.server.traffic.bytes_up += len(blob)
        return super()._post(request, blob)

    def _send(self, request: RequestModel, blob: bytes) -> ResponseModel:
        try:
            return self._post(request, blob)
        except RemoteError as error:
            cause = error.__cause__ if isinstance(error.__cause__, httpx.HTTPError) else error
            raise of_http(self.server, cause, len(blob)) from error
        except ValueError as error:  # an answer that is no response of nnsight's
            raise lost(self.server, "its answer to the request cannot be read") from error

    def _wait(self, connection: Any, response: ResponseModel) -> dict[str, Any]:
        """Status messages until the job is done; `response` is the first."""
        clock = _Clock(self.server)
        connection.settimeout(min(TICK, self.server.patience))
        while True:
            clock.news(response)
            if response.status == Status.ERROR:
                raise failed(self.server, self.model_key, response.description)
            if response.status == Status.COMPLETED:
                return self.download_result(response.data)
            response = self._next(connection, clock, response)

    def _next(self, connection: Any, clock: _Clock, last: ResponseModel) -> ResponseModel:
        while True:
            try:
                message = connection.recv()
                if not message:
                    raise websocket.WebSocketConnectionClosedException("the connection was closed")
            except websocket.WebSocketTimeoutException:
                clock.look()
                continue
            except (OSError, websocket.WebSocketException) as error:
                raise lost(self.server, f"{error}; the job was {last.status.value}") from error
            self.server.traffic.bytes_down += len(message)
            try:
                return self.parse(message)
            except (ValueError, RuntimeError, EOFError) as error:
                raise lost(self.server, "a message that cannot be read") from error

    def download_result(self, data: Any) -> dict[str, Any]:
        """The saved values: `data` is the blob itself, or the URL it waits at."""
        if not data:
            raise lost(self.server, "the job is done, but came without a result")
        content = bytes(data) if isinstance(data, (bytes, bytearray)) else self._download(data)
        try:
            if self.compress:
                content = zstandard.ZstdDecompressor().decompress(content)
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
        except (RuntimeError, EOFError, OSError, zstandard.ZstdError) as error:
            raise lost(self.server, f"{len(content)} bytes that are no result") from error

    def _download(self, url: str) -> bytes:
        try:
            answer = httpx.get(url, timeout=httpx.Timeout(CONNECT, read=READ))
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise lost(self.server, str(error).splitlines()[0]) from error
        self.server.traffic.bytes_down += len(answer.content)
        return answer.content


class _Clock:
    """How long a job has been waited for: a word now and then, and an end to patience."""

    def __init__(self, server: Server, now: Callable[[], float] = time.monotonic) -> None:
        self.server, self.now = server, now
        self.begun = self.heard = now()
        self.tell_at, self.last = TELL_AFTER, "nothing"

    def news(self, response: ResponseModel) -> None:
        """A message came."""
        if response.status != Status.LOG:
            self.last = f"{response.status.value} {response.description}".strip()
        self.heard = self.now()
        self.look()

    def look(self) -> None:
        """Say how it stands, if it is time; raise if there was no news for too long."""
        now = self.now()
        if now - self.heard >= self.server.patience:
            raise silent(self.server, self.last)
        if now - self.begun >= self.tell_at:
            logger.warning(
                "waiting for %s for %.0f s: %s", self.server.url, now - self.begun, self.server.scrub(self.last)
            )
            self.tell_at *= 2
