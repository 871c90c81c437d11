import socket
import time

import huggingface_hub.constants
import pytest

from clsinterp.errors import RequestError
from clsinterp.models import hub_reach
from clsinterp.vision_model import VisionModel


@pytest.fixture
def closed(monkeypatch):
    """An endpoint where nobody answers, in the place of the hub."""
    monkeypatch.setattr(hub_reach, "getproxies", dict)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_who_answers_is_reachable_and_who_does_not_is_not(closed):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert hub_reach.reachable(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert not hub_reach.reachable(closed)


def test_a_proxy_is_not_asked(closed, monkeypatch):
    monkeypatch.setattr(hub_reach, "getproxies", lambda: {"https": "http://proxy:1"})
    assert hub_reach.reachable(closed)


def test_a_name_that_is_never_looked_up_takes_two_seconds(closed, monkeypatch):
    monkeypatch.setattr(hub_reach, "SECONDS", 0.1)
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(1) or socket.socket())
    begun = time.monotonic()
    assert not hub_reach.reachable(closed)
    assert time.monotonic() - begun < 0.9


@pytest.mark.parametrize("source", ["timm/unknown.model", "google/unknown-model"])
def test_an_unknown_id_fails_soon_without_a_network(source, closed, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", closed)
    begun = time.monotonic()
    with pytest.raises(RequestError, match="cache"):
        VisionModel(source)
    assert time.monotonic() - begun < 3
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
