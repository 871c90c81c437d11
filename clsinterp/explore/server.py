"""The page as a web server for one machine: what it answers, and to whom."""

import ipaddress
import logging
import socket
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
from dash import Dash
from dash.exceptions import DependencyException
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from clsinterp.errors import ClsinterpError, RequestError
from clsinterp.explore import callbacks
from clsinterp.explore.asking import MOST, check_question, tab_name
from clsinterp.explore.budget import Budget
from clsinterp.explore.gallery import MAX_BYTES
from clsinterp.explore.page import layout
from clsinterp.explore.session import Session
from clsinterp.explore.state import State
from clsinterp.figures.files import to_html
from clsinterp.views.figure import lens_figure
from clsinterp.views.table import attention_table, lens_table, similarity_table

logger = logging.getLogger(__name__)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Nothing but this server: a script or picture from elsewhere is refused by the browser itself.
POLICY = (
    "default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

UPDATE = "/_dash-update-component"
ARRIVING = Budget(8 * MAX_BYTES)  # bodies of uploads that are on their way or being decoded
# Dash asks for these only when it meets the first component that needs them; named here, they load with the rest.
EARLY = (
    "plotly/package_data/plotly.min.js", "dash/dcc/async-graph.js", "dash/dcc/async-dropdown.js", "dash/dcc/async-slider.js",
)  # fmt: skip
INDEX = """<!doctype html>
<html lang="en"><head>{%metas%}<title>{%title%}</title>{%favicon%}PRELOAD{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>
""".replace(
    "PRELOAD", "".join(f'<link rel="preload" as="script" href="/_dash-component-suites/{path}">' for path in EARLY)
)


def build(session: Session, host: str = "127.0.0.1") -> Dash:
    """The page as a Dash application, guarded; `host` is where it will listen.

    Raises:
        RequestError: from the session's model.
    """
    app = Dash(
        "clsinterp",
        assets_folder=str(Path(__file__).parent / "assets"),
        title="clsinterp explore",
        update_title="",
        serve_locally=True,
        on_error=callbacks.failed,
        enable_mcp=False,
        index_string=INDEX,
        meta_tags=[{"name": "color-scheme", "content": "light dark"}],
    )
    app.layout = layout(session)
    callbacks.register(app, session)
    flask: Flask = app.server
    flask.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    policy = POLICY.format(hashes=" ".join(app.csp_hashes()))
    _guard(app, host, policy)
    _routes(flask, session)
    return app


def allowed_hosts(host: str) -> set[str]:
    """Names by which a browser may call a server that listens on `host`."""
    names = {"localhost", "127.0.0.1", "[::1]"}
    return (
        names if is_loopback(host) else {*names, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _guard(app: Dash, host: str, policy: str) -> None:
    flask: Flask = app.server
    names, loopback = allowed_hosts(host), is_loopback(host)

    def known(netloc: str) -> bool:
        try:
            name = urlsplit(f"//{netloc}").hostname or ""
        except ValueError:
            return False
        if name in names or f"[{name}]" in names:
            return True
        if loopback:
            return False
        try:  # an address cannot be rebound as a name can
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    @flask.before_request
    def refuse_strangers() -> Any:
        # Another site's page may reach this server by rebinding its own name to this machine, or by posting here.
        if not known(request.host):
            return _text("This host name is not served here.", 403)
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin) != request.host:
            return _text("Requests from other sites are not served.", 403)
        if "Transfer-Encoding" in request.headers:
            return _text("The request does not say how long it is.", 411)
        if request.path == UPDATE and request.method == "POST":
            if (request.content_length or 0) > MOST:
                return _text("The page asks for less than that.", 413)
            check_question(request, app.callback_map)
        return None

    @flask.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        if response.mimetype == "text/html":
            response.headers["Content-Security-Policy"] = policy
        return response

    @flask.errorhandler(413)
    def too_large(error: HTTPException) -> Any:
        return jsonify(error=f"That is more than {MAX_BYTES // 2**20} MB. Make the image smaller and try again."), 413

    @flask.errorhandler(DependencyException)
    def no_script(error: DependencyException) -> Any:
        return _text("There is no such script.", 404)

    @flask.errorhandler(ClsinterpError)
    def cannot(error: ClsinterpError) -> Any:
        return jsonify(error=str(error)), 400


def _netloc(origin: str) -> str | None:
    """Host and port of `origin`; None where it is no address at all."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _text(message: str, status: int) -> Response:
    return Response(message, status, mimetype="text/plain")


def _routes(flask: Flask, session: Session) -> None:
    @flask.post("/upload")
    def upload() -> Any:
        tab, name = _tab(), request.args.get("name", "")[:120] or "upload"
        session.tabs.alive(tab)
        with ARRIVING.hold(request.content_length or 0):
            picture = session.gallery.add(tab, request.get_data(), name)
        return jsonify(key=picture.key, name=picture.name)

    @flask.get("/uploads")
    def uploads() -> Any:
        return jsonify([{"key": p.key, "name": p.name} for p in session.gallery.uploads(_tab())])

    @flask.get("/thumb/<key>")
    def thumb(key: str) -> Response:
        picture = session.gallery.find(_tab(), key)
        return Response(picture.thumbnail, mimetype="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @flask.post("/tab/<what>")
    def tab(what: str) -> Any:
        says = {"alive": session.tabs.alive, "leaving": session.tabs.leaving}
        if what not in says:
            raise RequestError(f"{what[:40]!r} is nothing a tab says; {' and '.join(says)} are.")
        says[what](_tab())
        return "", 204

    @flask.get("/download/<what>")
    def download(what: str) -> Response:
        state, tab = State.parse(request.query_string.decode("ascii", "replace")), _tab()
        views = session.views(state, tab)
        name = f"lens-{state.quantity}"
        if what == "html":
            options: dict[str, Any] = {"class_index": state.class_index, "head": state.head, "layer": state.layer}
            figure = lens_figure(views, state.quantity, **options)
            return _file(to_html([figure]).encode(), f"{name}.html", "text/html")
        if what == "parquet":
            import pyarrow as pa

            table = {"attention": attention_table, "similarity": similarity_table}.get(state.quantity, lens_table)
            buffer = BytesIO()
            pq.write_table(pa.concat_tables([table(v) for v in views], promote_options="permissive"), buffer)
            return _file(buffer.getvalue(), f"{name}.parquet", "application/vnd.apache.parquet")
        raise RequestError(f"{what[:40]!r} cannot be downloaded; html and parquet can.")


def _tab() -> str:
    return tab_name(request.args.get("tab"))


def _file(data: bytes, name: str, kind: str) -> Response:
    return Response(data, mimetype=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


class _Quiet(WSGIRequestHandler):
    """No line for every request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def listen(app: Dash, host: str, port: int) -> BaseWSGIServer:
    """A server for `app` that is bound already; ``serve_forever()`` runs it.

    Raises:
        RequestError: the address cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        # Bound here: werkzeug would print, and end the process, where a port is taken.
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
            port = listening.getsockname()[1]
            return make_server(host, port, app.server, threaded=True, request_handler=_Quiet, fd=listening.fileno())
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}. "
            "Give another port=, or host='127.0.0.1'."
        ) from error
