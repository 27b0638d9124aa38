"""Refusals in the form of OpenAI's API, which its clients turn into exceptions of their own."""

from typing import Any

from starlette.responses import JSONResponse

from genai_core.errors import InputError

RETRY_SECONDS = 2


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


def too_many(count: int) -> Refused:
    """The refusal of a request for whose model `count` others are under way or wait, which is as many as may."""
    return Refused(429, f"{count} requests are under way or wait already; ask again in a moment", "rate_limit_exceeded",
                   retry_after=RETRY_SECONDS)


def first_line(error: BaseException) -> str:
    """What went wrong in one line, whoever raised it."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class EngineFailed(InputError):
    """An engine that did not start, or ended."""


class EngineStopped(InputError):
    """An engine that was ended while it started, since the server ends."""


class EngineMissing(EngineFailed):
    """An engine that this machine does not have or cannot run: another one may do."""
