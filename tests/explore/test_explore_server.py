"""The explorer without a browser: what the server serves, refuses, keeps and forgets; and the code it hands out."""

import http.client
import json
import threading
from io import BytesIO
from pathlib import Path

import explore_session
import pyarrow.parquet as pq
import pytest
import torch
from explore_session import encoded
from PIL import Image

from clsinterp.errors import RequestError
from clsinterp.explore import gallery as gallery_module
from clsinterp.explore.payload import payload
from clsinterp.explore.server import allowed_hosts, build, is_loopback, listen
from clsinterp.explore.state import State
from clsinterp.views.maps import QUANTITIES, panels

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
    similarity = pq.read_table(BytesIO(client.get(f"/download/parquet?{query}&quantity=similarity").data))
    assert similarity.num_rows == 2 * views[0].similarity.numel()
    assert client.get(f"/download/exe?{query}").status_code == 400


def test_the_page_is_told_at_which_layers_a_difference_is(session):
    a, b, *_ = keys(session)
    state = State(image=a, quantity="logit", class_index=3, replace="swap", at=2, donor=b)
    views = session.views(state, TAB)
    change = payload(views, state)["change"]
    z = (views[1].logits - views[0].logits)[..., 3].abs()
    assert change == pytest.approx([float(x.max()) for x in z], rel=1e-5, abs=1e-6)
    assert change[:2] == pytest.approx([0, 0], abs=1e-5)
    assert change[2] > 0
    assert payload(views[:1], state)["change"] is None
    (difference,) = [p for p in panels(views, "logit", 3) if p.title == "difference"]
    assert difference.scale.beside == "intervened − intact"
    places, texts = difference.scale.ticks
    assert texts[1] == "0"
    assert texts[2] == f"+{places[2]:g}"
    assert difference.scale.high / 2 < places[2] <= difference.scale.high
