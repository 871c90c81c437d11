import socket
import time

import huggingface_hub.constants
import pytest

from clsinterp.data import hub
from clsinterp.errors import RequestError
from clsinterp.vision_model import VisionModel


@pytest.fixture
def closed(monkeypatch):
    """An endpoint where nobody answers, in the place of the hub."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_who_does_not_answer_is_not_waited_for(closed, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", closed)
    assert not hub.reachable()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1) or [])
    begun = time.monotonic()
    assert not hub.reachable(0.1)
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
