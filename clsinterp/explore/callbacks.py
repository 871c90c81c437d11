"""What happens when something on the page changes. Two callbacks ask the server: a new view, and its code; the rest, and
so every layer change, is drawn in the browser by ``assets``."""

import logging
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, set_props

from clsinterp.errors import ClsinterpError
from clsinterp.explore.asking import tab_name
from clsinterp.explore.code import code
from clsinterp.explore.payload import payload
from clsinterp.explore.session import Session
from clsinterp.explore.state import State as View
from clsinterp.views.maps import default_class

logger = logging.getLogger(__name__)
CONTROLS = (
    Input("picked", "data"),
    Input("quantity", "value"),
    Input("class", "value"),
    Input("head", "value"),
    Input("replace", "value"),
    Input("at", "value"),
    Input("donor", "data"),
    Input("cls_only", "value"),
)
LOOKS = (Input("layer", "value"), Input("token", "data"), Input("theme", "data"))


def register(app: Dash, session: Session) -> None:
    """Connect the page."""

    @app.callback(
        Output("view", "data"),
        Input("asked", "data"),
        State("tab", "data"),
        running=[(Output("page", "className"), "busy", "")],
        prevent_initial_call=True,
    )
    def look(asked: str, tab: str | None) -> Any:
        try:
            state = View.parse(asked)
            return {**payload(session.views(state, tab_name(tab)), state), "asked": asked}
        except ClsinterpError as error:
            # Nothing of the view before may stay: it would be taken for this one.
            set_props("notice", {"children": str(error), "hidden": False})
            return {"error": str(error), "asked": asked}

    @app.callback(
        Output("code", "value"),
        Input("code-open", "n_clicks"),
        State("query", "data"),
        State("tab", "data"),
        prevent_initial_call=True,
    )
    def show_code(clicks: int | None, query: str, tab: str | None) -> Any:
        try:
            state = View.parse(query)
            views = session.views(state, tab_name(tab))
            layer = views[0].n_layers - 1 if state.layer is None else state.layer
            return code(session, state, tab_name(tab), layer, default_class(views[0], state.class_index))
        except ClsinterpError as error:
            return f"# {error}"

    def in_browser(name: str, outputs: Any, *inputs: Any, **options: Any) -> None:
        app.clientside_callback(ClientsideFunction("explore", name), outputs, *inputs, **options)

    in_browser(
        "open",
        [
            *(Output(one.component_id, one.component_property) for one in (*CONTROLS, *LOOKS)),
            Output("tab", "data"),
        ],
        Input("facts", "data"),
    )
    in_browser("uploaded", Output("uploads", "data"), Input("tab", "data"))
    in_browser("ask", Output("asked", "data"), *CONTROLS, State("facts", "data"))
    in_browser(
        "follow",
        Output("query", "data"),
        *CONTROLS, *LOOKS, Input("view", "data"), State("facts", "data"), State("tab", "data"),
    )  # fmt: skip
    in_browser(
        "draw",
        [Output("maps", "figure"), Output("trajectory", "figure")],
        Input("view", "data"), Input("theme", "data"), State("layer", "value"), State("token", "data"),
    )  # fmt: skip
    in_browser(
        "shelves",
        Output("shelved", "data"),
        Input("picked", "data"), Input("donor", "data"), Input("uploads", "data"), State("facts", "data"),
    )  # fmt: skip
    in_browser(
        "enable",
        [Output("class", "disabled"), Output("head", "disabled"), Output("at", "disabled"), Output("donor-box", "hidden")],
        Input("quantity", "value"), Input("replace", "value"), State("facts", "data"),
    )  # fmt: skip
    in_browser(
        "play",
        [Output("clock", "disabled"), Output("play", "children")],
        Input("play", "n_clicks"), State("clock", "disabled"), prevent_initial_call=True,
    )  # fmt: skip
    in_browser(
        "tick",
        Output("layer", "value", allow_duplicate=True),
        Input("clock", "n_intervals"), State("layer", "value"), State("facts", "data"), prevent_initial_call=True,
    )  # fmt: skip


def failed(error: Exception) -> None:
    """An error nobody foresaw: say so on the page, and everything else in the terminal."""
    logger.error("the page could not answer", exc_info=error)
    text = f"Something went wrong here ({type(error).__name__}). The terminal that runs the page has the details."
    set_props("notice", {"children": text, "hidden": False})
