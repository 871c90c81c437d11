"""What a request must look like before anything is done for it: the tab's name, and Dash's question for a new view.

Dash trusts the questions of its own page, and ends with a traceback on any other.
"""

from collections.abc import Mapping
from typing import Any

from flask import Request

from clsinterp.errors import RequestError

MOST = 2**16  # bytes of a question: an address and a few names


def tab_name(tab: object) -> str:
    """`tab`, if it is a name that a page gives itself.

    Raises:
        RequestError: it is not.
    """
    if not (isinstance(tab, str) and 1 <= len(tab) <= 64 and tab.isascii() and tab.isalnum()):
        raise RequestError("the request names no tab; open the page anew.")
    return tab


def check_question(request: Request, callbacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether `request` asks one of `callbacks` (Dash's, by output) as the page does.

    Raises:
        RequestError: it does not.
    """
    try:
        asked = request.get_json(force=True)
    except RecursionError as error:
        raise RequestError("the request is nested too deeply; JSON as the page writes it is expected.") from error
    known = callbacks.get(asked["output"]) if isinstance(asked, dict) and isinstance(asked.get("output"), str) else None
    if known is None:
        raise RequestError("the request asks for nothing this page has; open the page anew.")
    output, _, prop = asked["output"].rpartition(".")
    fits = (
        asked.get("outputs") == {"id": output, "property": prop}
        and _values(asked.get("inputs"), known["inputs"])
        and _values(asked.get("state", []), known["state"])
        and _texts(asked.get("changedPropIds", []))
    )
    if not fits:
        raise RequestError(f"the question for {asked['output']} is not as the page writes it; open the page anew.")


def _values(found: Any, expected: list[Mapping[str, str]]) -> bool:
    """Whether `found` has a plain value for each of the properties `expected`."""
    return (
        isinstance(found, list)
        and len(found) == len(expected)
        and all(
            isinstance(one, dict)
            and (one.get("id"), one.get("property")) == (wanted["id"], wanted["property"])
            and isinstance(one.get("value"), str | int | float | None)
            for one, wanted in zip(found, expected, strict=True)
        )
    )


def _texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)
