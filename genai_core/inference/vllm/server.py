"""A vLLM server of this process's own, for code that waits for its answers. `process.py` starts and ends it."""

import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from genai_core.errors import InputError
from genai_core.inference.vllm.log import reason_in

PROCESS = "genai_core.inference.vllm.process"
START_SECONDS = 1800.0
SOCKET = "unix:"
"""Before an address that is the path of a socket."""
ROOT = Path(__file__).parents[3]


class VllmServer:
    """A server that runs from here on, until `close` or the end of this process, however it ends. `scratch` is removed
    with it. Raises InputError, in one line, when it does not start."""

    def __init__(self, command: list[str], variables: dict[str, str], log: Path, scratch: Path):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_urlsafe(32)
        settings = {"command": command, "environment": {**variables, "VLLM_API_KEY": key}, "scratch": str(scratch)}
        own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            self._process = subprocess.Popen([sys.executable, "-m", PROCESS], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=file, env=own, start_new_session=True)
        self._client: httpx.Client | None = None
        try:
            self._client = httpx.Client(transport=httpx.HTTPTransport(uds=self._started(settings)),
                                        base_url="http://vllm", headers={"Authorization": f"Bearer {key}"},
                                        timeout=httpx.Timeout(None, connect=10))
        except BaseException:
            self.close()
            raise

    def _started(self, settings: dict[str, Any]) -> str:
        """The path of the socket on which it answers."""
        process = self._process
        assert process.stdin and process.stdout
        too_late = threading.Timer(START_SECONDS, process.kill)
        too_late.start()
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        finally:
            too_late.cancel()
        answer = json.loads(line) if line.endswith(b"\n") else {}
        if "address" not in answer:
            reason = answer.get("error") or reason_in(self.log.read_text(errors="replace")) or "it ended"
            raise InputError(f"vLLM did not start: {reason}; its log is {self.log}")
        return str(answer["address"]).removeprefix(SOCKET)

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
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> "VllmServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()
