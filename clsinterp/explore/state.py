"""What a page shows, and the address that says so."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from clsinterp.errors import RequestError
from clsinterp.views.intervention import REPLACEMENTS, ReplacementName
from clsinterp.views.maps import QUANTITIES

MOST = 2000  # characters of an address that is read at all


@dataclass(frozen=True)
class State:
    """A view of the page.

    Attributes:
        image: key of the image.
        layer, token: what is looked at; None is the last layer, the first token.
        quantity, class_index, head: what colours the map; None is the intact output's first class, the mean of heads.
        replace, at, donor: what replaces the CLS token, after which block, and the key of the image whose it is.
        cls_only: whether the other read-outs are off.
    """

    image: str | None = None
    layer: int | None = None
    token: int | None = None
    quantity: str = "probability"
    class_index: int | None = None
    head: int | None = None
    replace: ReplacementName | None = None
    at: int = 0
    donor: str | None = None
    cls_only: bool = False

    @property
    def intervenes(self) -> bool:
        """Whether anything is done to the forward."""
        return self.replace is not None or self.cls_only

    @classmethod
    def parse(cls, query: str) -> "State":
        """The state that an address's query names; fields of the page's looks are ignored.

        Raises:
            RequestError: a value that no page writes.

        Example:
            >>> State.parse("image=a1&layer=3&replace=swap&at=5&donor=b2").at
            5
        """
        if not isinstance(query, str):
            raise RequestError("the request names no address; open the page anew.")
        query = query.removeprefix("?")
        if len(query) > MOST:
            raise RequestError(f"an address of {len(query)} characters was given; at most {MOST} are read.")
        found = {key: found[-1] for key, found in parse_qs(query).items()}

        def number(key: str) -> int | None:
            text = found.get(key, "")
            if not text:
                return None
            try:
                return int(text)
            except ValueError:
                raise RequestError(f"{key}={text[:40]!r} was given in the address; a number is expected.") from None

        def one_of(key: str, allowed: tuple[str, ...], default: str | None) -> str | None:
            text = found.get(key) or default
            if text is not None and text not in allowed:
                raise RequestError(
                    f"{key}={text[:40]!r} was given in the address; one of {', '.join(allowed)} is expected."
                )
            return text

        return cls(
            image=found.get("image"),
            layer=number("layer"),
            token=number("token"),
            quantity=one_of("quantity", tuple(QUANTITIES), "probability") or "probability",
            class_index=number("class"),
            head=number("head"),
            replace=one_of("replace", REPLACEMENTS, None),  # type: ignore[arg-type]
            at=number("at") or 0,
            donor=found.get("donor"),
            cls_only=found.get("cls_only") == "1",
        )

    def query(self) -> str:
        """The address's query for this state; what is at its default is left out.

        Example:
            >>> State(image="a1", layer=3, cls_only=True).query()
            'image=a1&layer=3&quantity=probability&cls_only=1'
        """
        fields = {
            "image": self.image,
            "layer": self.layer,
            "token": self.token,
            "quantity": self.quantity,
            "class": self.class_index,
            "head": self.head,
            "replace": self.replace,
            "at": self.at if self.replace else None,
            "donor": self.donor if self.replace == "swap" else None,
            "cls_only": 1 if self.cls_only else None,
        }
        return urlencode({key: value for key, value in fields.items() if value is not None})
