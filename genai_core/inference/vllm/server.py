"""A vLLM server of this process's own, for code that waits for its answers. `process.py` starts and ends it."""

import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from genai_core.errors import InputError
from genai_core.inference import child
from genai_core.inference.vllm.log import reason_in

PROCESS = "genai_core.inference.vllm.process"
START_SECONDS = 1800.0
SOCKET = "unix:"
"""Before an address that is the path of a socket."""


class VllmServer:
    """A server that runs from here on, until `close` or the end of this process, however it ends. `scratch` is removed
    with it. Raises InputError, in one line, when it does not start."""

    def __init__(self, command: list[str], variables: dict[str, str], log: Path, scratch: Path):
        self.log = log
        key = secrets.token_urlsafe(32)
        settings = {"command": command, "environment": {**variables, "VLLM_API_KEY": key}, "scratch": str(scratch)}
        self._client: httpx.Client | None = None
        self._process, answer = child.start(PROCESS, settings, log, START_SECONDS)
        try:
            if "address" not in answer:
                reason = answer.get("error") or reason_in(log.read_text(errors="replace")) or "it ended"
                raise InputError(f"vLLM did not start: {reason}; its log is {log}")
            socket = str(answer["address"]).removeprefix(SOCKET)
            self._client = httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://vllm",
                                        headers={"Authorization": f"Bearer {key}"},
                                        timeout=httpx.Timeout(None, connect=10))
        except BaseException:
            self.close()
            raise

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a request, as JSON; None where it has no content. Raises InputError when there is none."""
        assert self._client is not None
        try:
            answer = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise InputError(f"vLLM broke off at {path} ({type(error).__name__}); its log is {self.log}") from None
        if not answer.is_success:
            raise InputError(f"vLLM refused {path} with status {answer.status_code}: {answer.text[:200]}; its log is "
                             f"{self.log}")
        return answer.json() if answer.content else None

    @property
    def version(self) -> str:
        """That of vLLM."""
        assert self._client is not None
        return str(self._client.get("/version").json()["version"])

    def close(self) -> None:
        """End it with all its processes."""
        if self._client is not None:
            self._client.close()
        child.end(self._process)

    def __enter__(self) -> "VllmServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()
