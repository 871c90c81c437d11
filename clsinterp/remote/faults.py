"""What can go wrong on the way to a server and there, each as one sentence and whether trying again can help."""

from __future__ import annotations

import json
import re

import httpx
import websocket

from clsinterp.errors import ClsinterpError, RequestError, RunError
from clsinterp.remote.server import KEY_VARIABLE, Server

RESUME = "a run goes on with resume=True"
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may be gone a moment later


class Fault(Exception):
    """A failed attempt.

    Attributes:
        error: what is raised if the fault lasts.
        passing: whether another attempt can help.
    """

    def __init__(self, error: ClsinterpError, passing: bool) -> None:
        super().__init__(str(error))
        self.error, self.passing = error, passing


def unreachable(server: Server, error: Exception) -> Fault:
    """No connection, or one that broke while the request was on its way."""
    why = server.scrub(str(error).strip() or type(error).__name__)
    if "certificate" in why.lower():
        return Fault(RunError(f"{server.url} cannot be trusted: {why}."), passing=False)
    return Fault(
        RunError(f"{server.url} cannot be reached ({why}). Is the server up, and the host right? Later {RESUME}."),
        passing=True,
    )


def refused(server: Server, status: int, detail: str, sent: int) -> Fault:
    """The server answered with an HTTP error."""
    detail = server.scrub(detail.strip().rstrip("."))[:500]
    if status in (401, 403) or (status == 400 and "api key" in detail.lower()):
        which = "did not accept the API key" if server.key else "wants an API key, and none was found"
        return Fault(
            RequestError(f"{server.url} {which} ({status}: {detail}). Set {KEY_VARIABLE}, or run nnsight login."), False
        )
    if status == 413:
        return Fault(
            RequestError(
                f"a request of {sent / 1e6:.1f} MB is too large for {server.url} ({detail}). Send fewer images at once with "
                "per_request=; the numbers stay the same."
            ),
            False,
        )
    if status in PASSING:
        return Fault(RunError(f"{server.url} is not available ({status}: {detail}). Later {RESUME}."), True)
    if status in (404, 405):
        return Fault(
            RequestError(f"{server.url} does not answer as an NDIF server does ({status}: {detail}); look at host=."),
            False,
        )
    return Fault(
        RequestError(
            f"{server.url} refused the request ({status}: {detail}). clsinterp check MODEL --remote compares versions."
        ),
        False,
    )


def lost(server: Server, why: str) -> Fault:
    """The request was taken, but its result did not arrive whole."""
    return Fault(RunError(f"{server.url} lost a result ({server.scrub(why)}). Later {RESUME}."), passing=True)


def silent(server: Server, last: str) -> Fault:
    """No news for longer than the server's patience."""
    return Fault(
        RunError(
            f"no news from {server.url} for {server.patience:.0f} s; the last was: {server.scrub(last)}. Later {RESUME}."
        ),
        passing=False,
    )


def failed(server: Server, model_key: str, description: str) -> Fault:
    """The job ended in an error: the model is not there, or the code raised. `description` is the server's account."""
    text = server.scrub(description.strip())
    last = text.splitlines()[-1].strip() if text else "no reason given"
    fault = _failed(server, model_key, text, last)
    if "\n" in text:  # the whole traceback stays with the exception; the message has its last line
        fault.error.add_note(f"The server's traceback:\n{text}")
    return fault


def _failed(server: Server, model_key: str, text: str, last: str) -> Fault:
    if text.startswith("Could not deploy"):
        return Fault(
            RequestError(
                f"{server.url} does not host {model_key} ({last}). clsinterp check MODEL --remote lists what it hosts."
            ),
            False,
        )
    if text.startswith("Error provisioning") or text.startswith("Error starting") or "preempted" in last:
        return Fault(RunError(f"{server.url} could not run the model now ({last}). Later {RESUME}."), True)
    if "out of memory" in text.lower() or "execution timeout" in text:
        return Fault(
            RunError(
                f"the batch was too much for {server.url} ({last}). Send fewer images at once with "
                "per_request=; the numbers stay the same."
            ),
            False,
        )
    if "UnknownPersistentIdError" in text:
        return Fault(
            RequestError(
                f"{server.url} hosts {model_key} as another class: it has no {last.rpartition(':')[2].strip()}. "
                "clsinterp check MODEL --remote compares versions."
            ),
            False,
        )
    if missing := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text):
        return Fault(
            RunError(
                f"{server.url} has no module {missing[1]}, which the trace uses. nnsight.register({missing[1]!r}) sends a "
                "module's code along; a package has to be installed there."
            ),
            False,
        )
    if own := re.search(r"\b(RequestError|RunError): (.*)", last):
        return Fault({"RequestError": RequestError, "RunError": RunError}[own[1]](own[2]), False)
    where = re.findall(r'File "(?:\[[^\]]*\] )?[^"]*?([^/"]+)", line (\d+)', text)
    at = f", at {where[-1][0]} line {where[-1][1]}" if where else ""
    return Fault(RunError(f"the trace failed on {server.url}{at}: {last}"), False)


def of_http(server: Server, error: Exception, sent: int = 0) -> Fault:
    """The fault behind an exception of the HTTP or WebSocket client."""
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        return refused(server, response.status_code, _detail(response.text) or response.reason_phrase, sent)
    if isinstance(error, websocket.WebSocketBadStatusException):
        body = (error.resp_body or b"").decode(errors="replace")
        return refused(server, error.status_code, _detail(body) or "no reason given", sent)
    return unreachable(server, error)


def _detail(body: str) -> str:
    """What an error's body says; servers wrap it as {"detail": ...}."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return str(found.get("detail", found)) if isinstance(found, dict) else str(found)
