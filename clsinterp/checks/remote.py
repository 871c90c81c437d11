"""Does a server have the model, and would traces written here mean the same there?"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import nnsight
import torch

from clsinterp.checks.local import Finding
from clsinterp.remote.backend import CONNECT
from clsinterp.remote.faults import of_http
from clsinterp.remote.model import blank
from clsinterp.remote.server import Server
from clsinterp.remote.unstable import at_host, compare_versions
from clsinterp.vision_model import VisionModel


def check_remote(model: VisionModel) -> Iterator[Finding]:
    """Yield findings about `model` on its server, and end early where the rest could not hold.

    Checked: the server answers, hosts the model (``nnsight.status``), has the same versions (``nnsight.compare``), takes the
    key, runs the family's class, and reads and writes the CLS token where this package says.

    Raises:
        RequestError, RunError: the server cannot be asked; the message says why.
    """
    server = model.server
    assert server is not None  # the command loads the model with remote=
    ping(server)
    yield Finding("the server answers", True, server.url)
    with at_host(server.url):
        status = nnsight.status(raw=True)
    yield (hosted := _hosted(model, deployments(status)))
    if not hosted.holds:
        return
    yield from _versions(server)
    facts = model.server_facts
    sent = server.traffic.bytes_up
    detail = f"{facts['class']} in {facts['dtype']} on {facts['device']}; {sent / 1e3:.0f} kB up besides pixels"
    yield Finding("it takes the key and runs the family's class", facts["class"] == model.family.hf_class, detail)
    if model.family.has_cls:
        yield _cls(model)


def ping(server: Server) -> None:
    """Ask the server whether it is there.

    Raises:
        RunError: it is not.
    """
    try:
        httpx.get(f"{server.url}/ping", timeout=CONNECT).raise_for_status()
    except httpx.HTTPError as error:
        raise of_http(server, error).error from error


def deployments(status: Any) -> list[dict[str, Any]]:
    """The entries of ``/status``, one for each replica, each with the model it is of.

    NDIF 0.1 keys an entry as ``REPLICA:ModelActor:CLASS:{"repo_id": ..., "revision": ..., "task": ...}``. Once its cluster has
    measured the model, the entry repeats the key and what the config calls the model; before that it has a state only. The
    key counts, as requests are sent by it; where there is none, the entry. Entries that name no model are left out.

    Example:
        >>> deployments({"deployments": {'7d:ModelActor:a.B:{"repo_id": "x/y"}': {"application_state": "RUNNING"}}})
        [{'application_state': 'RUNNING', 'repo_id': 'x/y'}]
    """
    entries = status.get("deployments") if isinstance(status, dict) else None
    found = []
    for name, entry in (entries if isinstance(entries, dict) else {}).items():
        said = entry if isinstance(entry, dict) else {}
        one = {**said, **_of_key(said.get("model_key") or name)}
        if one.get("repo_id"):
            found.append(one)
    return found


def _of_key(key: Any) -> dict[str, Any]:
    """What the JSON at the end of a model's key says; nothing if there is none."""
    _, brace, rest = str(key).partition("{")
    try:
        parts = json.loads(brace + rest)
    except ValueError:
        return {}
    return parts if isinstance(parts, dict) else {}


def _hosted(model: VisionModel, entries: list[dict[str, Any]]) -> Finding:
    wanted = json.loads(model.to_model_key().split(":", 1)[1])
    found = [
        d
        for d in entries
        if d["repo_id"] == wanted["repo_id"]
        and (d.get("revision") or "main") == (wanted["revision"] or "main")
        and d.get("task") in (None, wanted["task"])
    ]
    name = f"{wanted['repo_id']} ({wanted['task']}, revision {wanted['revision'] or 'main'})"
    if not found:
        others = sorted(
            {f"{d['repo_id']} ({', '.join(_known(d, 'task', 'revision')) or 'task unknown'})" for d in entries}
        )
        listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        return Finding(f"the server hosts {name}", False, f"it hosts: {listed or 'nothing'}")
    states = {", ".join(_known(d, "application_state", "deployment_level")) or "state unknown" for d in found}
    return Finding(f"the server hosts {name}", True, "; ".join(sorted(states)))


def _known(entry: dict[str, Any], *names: str) -> list[str]:
    """The values of `names` that `entry` has, as words."""
    return [str(entry[name]) for name in names if entry.get(name)]


def _versions(server: Server) -> Iterator[Finding]:
    with at_host(server.url):
        env = compare_versions()
    # What stands after a plus names the build (torch 2.13.0+cpu, 2.13.0+cu130): another build runs the same code.
    other = {name: [str(v[side]) for side in ("local", "remote")] for name, v in env.critical_mismatches.items()}
    same = all(here.partition("+")[0] == there.partition("+")[0] for here, there in other.values())
    detail = "; ".join(f"{name}: {here} here, {there} there" for name, (here, there) in sorted(other.items()))
    yield Finding("nnsight, torch and transformers are the same there", same, detail)
    here, there = (".".join(python.split(".")[:2]) for python in (env.local_python, env.remote_python))
    # Not a condition: code travels as source. But a function of the user's may use what only one of them has.
    yield Finding("Python is known there", bool(there), f"{here} here, {there} there")


def _cls(model: VisionModel) -> Finding:
    pixels = blank(model, 2)
    last = model.n_layers - 1
    with model.trace(pixels):
        with torch.no_grad():
            before = model.blocks[0].cls.clone()
            model.blocks[0].cls = before.flip(0)
            after = model.blocks[0].output[:, model.layout.index("cls")].clone()
            end = model.blocks[last].cls.clone()
        nnsight.save(before)
        nnsight.save(after)
        nnsight.save(end)
    swapped = torch.equal(after, before.flip(0)) and not torch.equal(before[0], before[1])
    return Finding(
        "the CLS token reads and writes there", swapped and bool(torch.isfinite(end).all()), "blocks 0 and last"
    )
