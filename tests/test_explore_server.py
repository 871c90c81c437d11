"""The explorer without a browser: what the server serves, refuses, keeps and forgets; and the code it hands out."""

import http.client
import json
import runpy
import threading
from io import BytesIO
from pathlib import Path

import explore_session
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from explore_session import encoded
from PIL import Image
from test_cli import invoke

from clsinterp.errors import RequestError
from clsinterp.explore import code as code_module
from clsinterp.explore import gallery as gallery_module
from clsinterp.explore.cache import TabCache
from clsinterp.explore.gallery import Picture, from_folder
from clsinterp.explore.payload import payload
from clsinterp.explore.server import allowed_hosts, build, is_loopback, listen
from clsinterp.explore.state import State
from clsinterp.explore.tabs import GRACE, SILENCE, Tabs
from clsinterp.lens_maps import QUANTITIES, panels, values
from clsinterp.lens_view import lens

TAB = "a1b2c3"


@pytest.fixture
def session(model, pictures):
    return explore_session.session(model("deit"), pictures)


@pytest.fixture
def client(session):
    return build(session).server.test_client()


def keys(session):
    return [p.key for p in session.gallery.pictures]


# -- who may ask ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8050", 200),
        ("localhost", 200),
        ("[::1]:8050", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.7", 403),
        ("", 403),
    ],
)
def test_foreign_host_names_are_refused(client, host, status):
    for path in ("/", "/_dash-layout", "/uploads?tab=x"):
        assert client.get(path, headers={"Host": host}).status_code == status


def test_other_sites_may_not_post(client):
    data = encoded(Image.new("RGB", (9, 9)))
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost", 200)):
        assert client.post(f"/upload?tab={TAB}", data=data, headers={"Origin": origin}).status_code == status


def test_beyond_loopback_addresses_are_hosts_but_strange_names_are_not(session):
    client = build(session, "0.0.0.0").server.test_client()
    assert client.get("/", headers={"Host": "192.168.1.20:8050"}).status_code == 200
    assert client.get("/", headers={"Host": "rebound.example"}).status_code == 403
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.com")
    assert is_loopback("::1")
    assert "example.com" in allowed_hosts("example.com")


def test_pages_allow_nothing_from_elsewhere(client):
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"http://" not in answer.data.replace(b"http://www.w3.org", b"")
    assert b"https://" not in answer.data


# -- uploads -----------------------------------------------------------------------


def post(client, data, name="cat.png"):
    return client.post(f"/upload?tab={TAB}&name={name}", data=data)


def test_an_upload_is_held_in_memory_and_never_written(client, session, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a file was written")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    answer = post(client, encoded(Image.new("RGB", (50, 40), "teal")), "../../etc/passwd")
    assert answer.status_code == 200
    key = answer.json["key"]
    assert session.gallery.find(TAB, key).image().size == (50, 40)
    assert client.get(f"/uploads?tab={TAB}").json == [{"key": key, "name": "../../etc/passwd"}]
    assert client.get("/uploads?tab=other").json == [], "another tab sees the upload"
    assert Image.open(BytesIO(client.get(f"/thumb/{key}?tab={TAB}").data)).size == (50, 40)


BROKEN = encoded(Image.effect_noise((64, 64), 90), "JPEG")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not an image"),
        (b"\x89PNG\r\n\x1a\nrubbish", "cat.png"),
        (b"%PDF-1.7 hello", "not an image"),
        (BROKEN[: len(BROKEN) // 2], "damaged"),
        (encoded(Image.new("1", (6000, 6000))), "6000 x 6000"),
        (encoded(Image.new("1", (65000, 400)), "TIFF", compression="group4"), "65000 x 400"),
    ],
)
def test_bad_uploads_say_what_is_wrong(client, session, data, said):
    answer = post(client, data)
    assert answer.status_code == 400
    assert said in answer.json["error"]
    assert session.gallery.uploads(TAB) == []


@pytest.mark.parametrize(
    "image", [Image.new(mode, (7, 5)) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F")]
)
def test_every_kind_of_picture_can_be_looked_at(client, session, image):
    kind = "TIFF" if image.mode in ("CMYK", "F") else "PNG"
    key = post(client, encoded(image, kind)).json["key"]
    (view,) = session.views(State(image=key), TAB)
    assert torch.isfinite(view.logits).all()


def test_bodies_are_limited_on_the_wire(session):
    server = listen(build(session), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.putrequest("POST", f"/upload?tab={TAB}&name=big.png")
        connection.putheader("Content-Length", str(gallery_module.MAX_BYTES + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "10 MB" in json.loads(answer.read())["error"]
    finally:
        server.shutdown()
        server.server_close()


def test_uploads_of_a_tab_are_bounded(client, session):
    made = [post(client, encoded(Image.new("RGB", (9, 9), (i, 0, 0)))).json["key"] for i in range(25)]
    assert [p.key for p in session.gallery.uploads(TAB)] == made[-gallery_module.MAX_UPLOADS :]


def test_only_keys_are_looked_up_never_paths(client, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    for path in (
        f"/thumb/{secret}",
        f"/thumb/..%2f..%2f{secret.name}",
        "/assets/..%2fserver.py",
        "/assets/../server.py",
    ):
        answer = client.get(f"{path}?tab={TAB}")  # an unknown path is answered with the page itself
        assert answer.status_code in (308, 400, 404) or b"_dash-config" in answer.data
        assert secret.read_bytes() not in answer.data
        assert b"def build" not in answer.data
    assert client.get(f"/download/html?tab={TAB}&image={secret}").status_code == 400
    assert client.get("/uploads?tab=../x").status_code == 400


# -- states ------------------------------------------------------------------------


def test_a_state_and_its_address_are_the_same():
    for state in (
        State(),
        State("k", 3, 7, "entropy", 4, None, "swap", -1, "d", True),
        State("k & =", 0, 0, "attention", None, 2, "zero", 5),
    ):
        assert State.parse("?" + state.query()) == state


@pytest.mark.parametrize("query", ["layer=x", "quantity=joy", "replace=rm", "class=1.5", "image=" + "a" * 3000])
def test_addresses_no_page_writes_are_refused(query, client):
    with pytest.raises(RequestError):
        State.parse(query)
    assert client.get(f"/download/parquet?tab={TAB}&{query}").status_code == 400


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_browser_gets_the_numbers_of_the_view(session, quantity):
    a, b, *_ = keys(session)
    state = State(image=a, quantity=quantity, class_index=3, replace="swap", at=1, donor=b)
    views = session.views(state, TAB)
    sent = json.loads(json.dumps(payload(views, state)))
    found = panels(views, quantity, 3)
    for layer, cells in enumerate(sent["cells"]):
        for i, panel in enumerate(found):
            patches, prefix = cells[2 * i], cells[2 * i + 1]
            z = [x for row in (*prefix["z"], *patches["z"]) for x in row]
            assert z == pytest.approx(panel.z[layer].tolist(), rel=1e-5, abs=1e-6)
    for view, tops in zip(views, sent["views"], strict=True):
        p, c = view.top(5)
        assert tops["classes"] == c.tolist()
        torch.testing.assert_close(torch.tensor(tops["p"]), p, atol=1e-5, rtol=1e-5)
    assert views[1].intervention.layer == 1


def test_downloads_hold_the_view(client, session):
    a, b, *_ = keys(session)
    query = f"tab={TAB}&image={a}&replace=swap&at=2&donor={b}&layer=1"
    answer = client.get(f"/download/parquet?{query}")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    table = pq.read_table(BytesIO(answer.data)).to_pylist()
    views = session.views(State.parse(query), TAB)
    assert len(table) == 2 * views[0].logits.numel()
    assert {row["view"] for row in table} == {"intact", "intervened"}
    assert table[-1]["logit"] == pytest.approx(float(views[1].logits[-1, -1, -1]))
    page = client.get(f"/download/html?{query}&quantity=rank").data.decode()
    assert "Plotly.newPlot(" in page
    assert "<script src" not in page
    attention = pq.read_table(BytesIO(client.get(f"/download/parquet?{query}&quantity=attention").data))
    assert attention.num_rows == 2 * views[0].attention.numel()
    assert client.get(f"/download/exe?{query}").status_code == 400


# -- the cache ---------------------------------------------------------------------


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


# -- copy as code ------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Runs a script as a file: a trace reads its own source."""

    def script(text):
        file = tmp_path / f"copied{len(list(tmp_path.iterdir()))}.py"
        file.write_text(text)
        return runpy.run_path(str(file))

    return script


STATES = [
    {"quantity": quantity, "layer": 2, **change}
    for quantity, change in (
        ("probability", {}),
        ("logit", {"replace": "swap", "at": 1}),
        ("rank", {"replace": "mean", "at": 2}),
        ("identifiability", {"replace": "zero", "at": 3}),
        ("top1", {"replace": "noise", "at": 0}),
        ("entropy", {"replace": "swap", "at": -1, "cls_only": True}),
        ("attention", {"replace": "swap", "at": 1, "head": 1}),
        ("attention", {"replace": "swap", "at": 2, "cls_only": True}),
        ("attention", {}),
        ("probability", {"cls_only": True}),
    )
]


@pytest.mark.parametrize("change", STATES, ids=lambda c: "-".join(str(v) for v in c.values()))
@pytest.mark.parametrize("family", tiny.FIVE)
def test_the_copied_code_runs_and_gives_the_shown_numbers(model, folder, run, family, change):
    m = model(family)
    if change.get("cls_only") and not m.family.other_readouts:
        change = {**change, "cls_only": False}
    session = explore_session.Session(m, from_folder(folder / "test"))
    a, b = keys(session)[3:5]
    state = State(image=a, donor=b, **change)
    views = session.views(state, TAB)
    scope = run(code_module.code(session, state, TAB, state.layer, 2))
    shown = values(views[-1], state.quantity, 2, state.head)[state.layer]
    torch.testing.assert_close(scope["numbers"].float(), shown, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scope["output"].float(), views[-1].output, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scope["view"].logits, views[-1].logits, atol=1e-4, rtol=1e-4)
    assert scope["figure"].layout.sliders[0].active == state.layer


def test_code_from_the_shipped_sample_and_from_uploads(model, run, tmp_path, monkeypatch):
    from clsinterp.explore.gallery import from_data

    session = explore_session.Session(model("vit"), from_data("zoo"))
    assert len(session.gallery.pictures) == gallery_module.MAX_SHOWN
    state = State(image=keys(session)[5], replace="mean", at=1)
    scope = run(code_module.code(session, state, TAB, 3, 2))
    shown = session.views(state, TAB)[-1].probabilities[3, :, 2]
    torch.testing.assert_close(scope["numbers"], shown, atol=1e-4, rtol=1e-4)
    name = "a'); import os; os.remove('x').png"
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    picture = session.gallery.add(TAB, (tmp_path / name).read_bytes(), name)
    text = code_module.code(session, State(image=picture.key), TAB, 0, 0)
    assert run(text)["image"].filename == name


# -- galleries ---------------------------------------------------------------------


def test_folders_of_images(folder, tmp_path, caplog):
    shown = from_folder(folder / "test").pictures
    assert [p.name for p in shown] == sorted(p.name for p in shown)
    assert len(shown) == 42
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(RequestError, match="no image that can be read"):
        from_folder(tmp_path)
    assert "bad.png" in caplog.text
    with pytest.raises(RequestError, match="no folder"):
        from_folder(tmp_path / "nowhere")


def test_the_same_picture_has_the_same_key():
    data = encoded(Image.new("RGB", (9, 9)))
    assert Picture.of(data, "a", "").key == Picture.of(data, "b", "").key


# -- the command -------------------------------------------------------------------


def test_explore_refuses_what_cannot_be_served(checkpoint, folder, tmp_path, monkeypatch):
    from werkzeug.serving import BaseWSGIServer

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda self: pytest.fail("it was served"))
    images = ("--images", folder / "test", "--no-open")
    for args, said in (
        ((checkpoint("vit"), *images, "--data", "zoo"), "choose one"),
        ((checkpoint("vit"), "--images", tmp_path / "none"), "no folder"),
        ((checkpoint("dinov3"), *images), "no classifier"),
        ((tmp_path, *images), "config.json"),
        ((checkpoint("vit"), *images, "--port", "70000"), "--port"),
        ((checkpoint("vit"), *images, "--host", "no.such.host.invalid"), "no.such.host.invalid"),
    ):
        code, text = invoke("explore", *args)
        assert code == 2, text
        assert said in text
    with listen(build(explore_session.session_of(checkpoint, folder)), "127.0.0.1", 0) as taken:
        code, text = invoke("explore", checkpoint("vit"), *images, "--port", taken.port)
    assert code == 2
    assert f"port {taken.port}" in text


def test_listening_to_everyone_is_said_loudly(checkpoint, folder, monkeypatch):
    from werkzeug.serving import BaseWSGIServer

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", stop)
    args = ("explore", checkpoint("vit"), "--images", folder / "test", "--no-open", "--port", "0")
    code, text = invoke(*args, "--host", "0.0.0.0")
    assert code == 0, text
    assert "WARNING" in text
    code, text = invoke(*args)
    assert code == 0
    assert "WARNING" not in text


def test_lens_of_a_page_equals_lens_in_python(session):
    (picture, *_) = session.gallery.pictures
    (view,) = session.views(State(image=picture.key), TAB)
    assert torch.equal(view.logits, lens(session.model, picture.image()).logits)
