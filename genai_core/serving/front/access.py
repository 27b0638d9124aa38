"""Who is let in: no page of another origin, nobody under a foreign name, and with a key only who knows it."""

import hmac
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from genai_core.serving.errors import Refused
from genai_core.serving.server import LOOPBACK

OPEN = ("/", "/health", "/favicon.ico")
"""What holds no secret: a page that asks for the key, and whether the server is well."""


class AccessControl:
    """Lets through who may ask, and refuses others in the API's own form.

    A browser sends `Origin`, `Sec-Fetch-Site` and `Host`, which no page can change: the first two tell a page of
    another origin, the last one a name that somebody points at this machine (DNS rebinding). With a key the name does
    not matter: no page knows it.
    """

    def __init__(self, app: ASGIApp, key: str, host: str, refused: Callable[[str, int], None]):
        self.app, self.refused = app, refused
        self.key = key.encode()
        self.names = {*LOOPBACK, "[::1]", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except Refused as refused:
            self.refused("access", refused.status)
            return await refused.response(scope, receive, send)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self.key and _name(host) not in self.names:
            raise Refused(403, f"this server does not answer for the host {host[:100]!r}", "foreign_host")
        if _is_of_another_page(headers, scope["method"], host):
            raise Refused(403, "asked by a page of another origin", "foreign_origin")
        if not self.key or scope["path"] in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Refused(401, "no key: send it as Authorization: Bearer KEY", "invalid_api_key")
        if not hmac.compare_digest(given.strip().encode(), self.key):
            raise Refused(401, "wrong key", "invalid_api_key")


def _name(host: str) -> str:
    """A host without its port."""
    return host.lower().rpartition("]")[0] + "]" if host.startswith("[") else host.lower().partition(":")[0]


def _is_of_another_page(headers: dict[str, str], method: str, host: str) -> bool:
    """Whether another page sent this; following a link to here is no harm."""
    origin = headers.get("origin")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        return True
    follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate" \
        and headers.get("sec-fetch-dest") == "document"
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link
