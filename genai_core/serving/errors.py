"""Refusals in the form of OpenAI's API, which its clients turn into exceptions of their own."""

from typing import Any

from starlette.responses import JSONResponse

from genai_core.errors import InputError


class Refused(Exception):
    """A request that gets no answer: its status, and why in words."""

    def __init__(self, status: int, message: str, code: str = "", param: str | None = None,
                 retry_after: int | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}}

    @property
    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.body, self.status, headers)


class EngineFailed(InputError):
    """An engine that did not start, or ended."""


class EngineMissing(EngineFailed):
    """An engine that this machine does not have or cannot run: another one may do."""
