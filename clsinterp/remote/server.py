"""Where remote traces run, how patiently, and what went over the wire."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from clsinterp.errors import RequestError

KEY_VARIABLE = "NDIF_API_KEY"


MOST_PER_REQUEST = 65536


@dataclass
class Traffic:
    """What has been sent and received.

    Attributes:
        requests: answered requests.
        retries: requests sent again after a fault.
        bytes_up: request bodies, compressed as they were sent, those of retries included.
        bytes_down: results and status messages.
    """

    requests: int = 0
    retries: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(frozen=True)
class Server:
    """An NDIF server: NDIF itself, or one of your own.

    The API key is no attribute: it is read from the variable NDIF_API_KEY, or from nnsight's own configuration (``nnsight
    login``), at the moment it is sent.

    Attributes:
        host: URL; None is the one nnsight is configured for (NDIF_HOST, else NDIF itself).
        tries: how often a request is sent before a fault that may pass counts as lasting.
        backoff: seconds before the second try; doubled for each one after it.
        patience: seconds without any news of a request before it is given up.
        per_request: at most this many images in one request; None is a whole batch.
        traffic: what went over the wire.

    Raises:
        RequestError: a host that is not a plain http(s) URL.
    """

    host: str | None = None
    tries: int = 6
    backoff: float = 1.0
    patience: float = 1800.0
    per_request: int | None = None
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    def __post_init__(self) -> None:
        if self.host is not None:
            try:
                parts = urlsplit(self.host)
                _ = parts.port  # looked at only when it is asked for
            except ValueError as error:  # neither is repeated: there may be a key in them
                raise RequestError("the host is no URL; one such as https://api.ndif.us is expected.") from error
            if parts.username or parts.password:  # not repeated in the message: it may be a key
                raise RequestError(f"the host URL carries a name or password; give the key as {KEY_VARIABLE} instead.")
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise RequestError(f"host {self.host} was given; a URL such as https://api.ndif.us is expected.")
        if self.per_request is not None and not 1 <= self.per_request <= MOST_PER_REQUEST:
            raise RequestError(
                f"{self.per_request} images per request were asked for; 1 to {MOST_PER_REQUEST} is expected."
            )

    @classmethod
    def of(cls, remote: "bool | str | Server") -> "Server | None":
        """What ``remote=`` of `VisionModel` stands for: False, True (the configured host), a URL, or a `Server`."""
        if isinstance(remote, Server):
            return remote
        if isinstance(remote, str):
            return cls(remote)
        return cls() if remote else None

    @property
    def url(self) -> str:
        """The URL requests go to."""
        from clsinterp.remote.unstable import configured_host  # brings torch in

        return (self.host or configured_host()).rstrip("/")

    @property
    def websocket_url(self) -> str:
        """The same with the scheme of WebSockets."""
        return "ws" + self.url.removeprefix("http")

    @property
    def key(self) -> str:
        """The API key, or an empty string."""
        from clsinterp.remote.unstable import configured_key

        return os.environ.get(KEY_VARIABLE) or configured_key()

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"ndif-api-key": self.key} if self.key else {}

    def scrub(self, text: str) -> str:
        """`text` without the API key, which a server may repeat in what it says."""
        return text.replace(self.key, "[API key]") if self.key else text
