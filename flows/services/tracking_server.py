"""MLflow's app behind the password of the workspace: `mlflow server --app-name genai`, by the entry point `mlflow.app`.

MLflow's own `basic-auth` is for many users with rights of their own (docs/deploy.md). It lets a page of any port of
this machine use the password that the browser remembers, and such a page may be another user's; here only the pages
of this very server may. A browser sends `Origin` and `Sec-Fetch-Site`, which no page can change.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flows.services.password import password_of
from tasks.store.workspace import Workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_TO_ALL = ("/health", "/version")


def create_app() -> App:
    """MLflow's app, closed; uvicorn calls it in the process of the server."""
    from mlflow.server.fastapi_app import app

    return Door(app, password_of(Workspace.current()))


class Door:
    """Lets through who knows the password and is no page of another origin."""

    def __init__(self, app: App, auth: str):
        self.app = app
        self.auth = auth.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_TO_ALL):
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if _is_of_another_page(headers, scope):
            return await _answer(send, 403, "asked by a page of another origin")
        if not hmac.compare_digest(_given(headers.get("authorization", "")), self.auth):
            return await _answer(send, 401, "user and password are in .genai/password of the workspace",
                                 (b"www-authenticate", b'Basic realm="MLflow of this workspace", charset="UTF-8"'))
        await self.app(scope, receive, send)


def _is_of_another_page(headers: dict[str, str], scope: Scope) -> bool:
    """Whether another page sent this; following a link to here is no harm."""
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        return True
    follows_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" \
        and headers.get("sec-fetch-dest") == "document"
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link


def _given(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    try:
        return base64.b64decode(credentials, validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"text/plain"), *headers]})
    await send({"type": "http.response.body", "body": text.encode()})
