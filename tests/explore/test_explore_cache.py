"""What the explorer keeps, for how long, and that its model serves one request at a time."""

import threading

import explore_session
import pytest
import torch
from explore_session import encoded
from PIL import Image

from clsinterp.explore.cache import TabCache
from clsinterp.explore.server import build
from clsinterp.explore.state import State
from clsinterp.explore.tabs import GRACE, SILENCE, Tabs
from clsinterp.views.lens import lens


@pytest.fixture
def session(model, pictures):
    return explore_session.session(model("deit"), pictures)


@pytest.fixture
def client(session):
    return build(session).server.test_client()


def keys(session):
    return [p.key for p in session.gallery.pictures]


class Size(int):
    nbytes = property(lambda self: int(self))


def test_the_cache_is_bounded_and_makes_each_value_once():
    cache, made = TabCache(100), []

    def make(n):
        made.append(n)
        return Size(n)

    for key in (1, 2, 1, 3, 1, 2):
        cache.get(key, "t", lambda key=key: make(40 + key))
        assert cache.nbytes <= 100
    assert made == [41, 42, 43, 42], "1 was used again before 3 came, so 2 had to go"
    cache.get("big", "t", lambda: make(1000))
    assert len(cache) == 1, "the newest stays even if it alone is too large"


def test_requests_never_interleave():
    cache, inside, most = TabCache(10**6), [], []

    def make():
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)
        inside.pop()
        return Size(1)

    threads = [threading.Thread(target=cache.get, args=(i % 3, "t", make)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_concurrent_tabs_get_what_a_single_one_gets(session):
    a, b, c, *_ = keys(session)
    states = [
        State(image=k, replace=r, at=at, donor=b) for k in (a, c) for r, at in ((None, 0), ("swap", 1), ("mean", 2))
    ]
    found = {}

    def ask(i, state):
        found[i] = session.views(state, f"tab{i}")[-1].logits

    threads = [threading.Thread(target=ask, args=(i, s)) for i, s in enumerate(states)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.views_cache.drop("none")
    for i, state in enumerate(states):
        alone = explore_session.Session(session.model, session.gallery).views(state, "x")[-1].logits
        assert torch.equal(found[i], alone)


def test_a_closed_tab_frees_its_cache(client, session):
    a, b, *_ = keys(session)
    now = [0.0]
    session.tabs._clock = lambda: now[0]
    session.views(State(image=a), "one")
    session.views(State(image=b), "one")
    session.views(State(image=a), "two")
    session.gallery.add("one", encoded(Image.new("RGB", (9, 9))), "x.png")
    assert len(session.views_cache) == 2
    assert client.post("/tab/leaving?tab=one").status_code == 204
    now[0] += GRACE / 2
    client.post("/tab/alive?tab=one")  # it was a reload
    now[0] += GRACE
    session.tabs.sweep()
    assert len(session.views_cache) == 2
    client.post("/tab/leaving?tab=one")
    now[0] += GRACE + 1
    session.tabs.sweep()
    assert len(session.views_cache) == 1, "the view that tab two also uses stays"
    assert session.gallery.uploads("one") == []
    now[0] += SILENCE + 1
    session.tabs.sweep()
    assert len(session.views_cache) == 0, "a tab that fell silent is gone too"


def test_tabs_that_never_spoke_are_nobody():
    freed = []
    tabs = Tabs(freed.append)
    tabs.leaving("ghost")
    tabs.sweep()
    assert freed == []
    assert len(tabs) == 0


def test_lens_of_a_page_equals_lens_in_python(session):
    (picture, *_) = session.gallery.pictures
    (view,) = session.views(State(image=picture.key), "one")
    assert torch.equal(view.logits, lens(session.model, picture.image()).logits)
