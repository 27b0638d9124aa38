"""An engine: a process on a loopback port that answers OpenAI's requests for one model, and dies with this one. It asks
for a key that it is told with its settings."""

import asyncio
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from tokenizers import Tokenizer

from genai_core.data.chat import cleaned
from genai_core.inference import child
from genai_core.inference.vllm.log import reason_in
from genai_core.inference.vllm.server import SOCKET
from genai_core.serving.dialect import Dialect
from genai_core.serving.errors import EngineFailed, EngineMissing, Refused

LLAMA_CPP = "genai_core.serving.llama_cpp"
OWN = "genai_core.serving.own_engine"
VLLM = "genai_core.serving.vllm"
NAMES = {LLAMA_CPP: "llama.cpp", OWN: "our own engine", VLLM: "vLLM"}
LOADING = "error loading model: "
"""After which llama.cpp's log says what is wrong with a file."""
START_SECONDS = {LLAMA_CPP: 300.0, OWN: 300.0, VLLM: 1800.0}
"""vLLM compiles on a GPU, and reads what may be large."""
RETRY_SECONDS = 2


class EngineProcess:
    """An engine that runs, with its slots. Requests beyond `slots + queue` are refused."""

    def __init__(self, module: str, path: Path, name: str, *, context: int, slots: int, queue: int, threads: int,
                 log: Path, dialect: Dialect | None = None, **more: Any):
        self.dialect = dialect or Dialect()
        self.module, self.name, self.context, self.slots, self.queue = module, name, context, slots, queue
        self._key, self._log = secrets.token_urlsafe(32), log
        self._settings = {"path": str(path), "name": name, "key": self._key, "context": context, "slots": slots,
                          "threads": threads, **more}
        self._free = asyncio.Semaphore(slots)
        self.taken = 0
        """Requests that hold it: those under way and those that wait for a slot."""
        self.tokenizer: Tokenizer | None = None
        """The tokenizer of a model directory, which may have special tokens that no request knows."""
        self._process: subprocess.Popen[bytes] | None = None
        self.client: httpx.AsyncClient

    def start(self) -> None:
        """Start the process and wait until it answers. Raises EngineFailed, in one line, when it does not."""
        log_size = self._log.stat().st_size if self._log.exists() else 0
        seconds = START_SECONDS.get(self.module, START_SECONDS[OWN])
        self._process, answer = child.start(self.module, self._settings, self._log, seconds, append=True)
        if "address" not in answer:
            child.end(self._process)
            self._explain(self._process.wait(), answer, self._log.read_bytes()[log_size:].decode(errors="replace"))
        self.context = answer.get("context", self.context)
        # a connection each: llama.cpp closes one after some requests or seconds, now and then just as the next is sent
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        address = str(answer["address"])
        socket = address.removeprefix(SOCKET) if address.startswith(SOCKET) else None
        transport = httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=limits, uds=socket)
        self.client = httpx.AsyncClient(base_url="http://engine" if socket else address, transport=transport,
                                        headers={"Authorization": f"Bearer {self._key}"},
                                        timeout=httpx.Timeout(None, connect=10), trust_env=False)

    def _explain(self, code: int, answer: dict[str, str], log: str) -> None:
        """Raise EngineFailed in one line."""
        what = f"{NAMES.get(self.module, self.module)} with {self._settings['path']}"
        if "missing" in answer:
            raise EngineMissing(answer["missing"])
        if code == -signal.SIGILL:
            raise EngineMissing(f"{what}: killed by SIGILL: the installed wheel of xllamacpp has instructions that "
                                "this processor lacks")
        if said := [line.partition(LOADING)[2] for line in log.splitlines() if LOADING in line]:
            raise EngineFailed(f"{what}: {said[0]}")
        if self.module == VLLM and not answer and (reason := reason_in(log)):
            raise EngineFailed(f"{what}: {reason}; its log is {self._log}")
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise EngineFailed(f"{what}: {answer.get('error') or ended}; its log is {self._log}")

    def cleaned(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Messages without special tokens of the model."""
        return cleaned(self.tokenizer, messages) if self.tokenizer else messages

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes of resident memory, of all processes that it has started too."""
        if self._process is None:
            return 0
        total = 0
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):      # one that has just ended
                    total += each.memory_info().rss
        return total

    async def answers(self) -> bool:
        """Whether it answers now."""
        try:
            return self.runs and (await self.client.get("/health", timeout=5)).is_success
        except httpx.HTTPError:
            return False

    def take(self) -> None:
        """Hold the engine for a request. Raises Refused when as many wait as may."""
        if self.taken >= self.slots + self.queue:
            raise Refused(429, f"{self.taken} requests are under way or wait already; ask again in a moment",
                          "rate_limit_exceeded", retry_after=RETRY_SECONDS)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait, in order, for one of the slots."""
        async with self._free:
            yield

    async def prompt_tokens(self, path: str, body: dict[str, Any]) -> int:
        """How many tokens a request's prompt has."""
        return await self.dialect.prompt_tokens(self.client, path, body)

    async def sized(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the engine is sent, with the length of the answer where it needs to be told."""
        return await self.dialect.sized(self.client, path, body, self.context)

    async def stop(self, seconds: float = 0.0) -> None:
        """End the process, after the requests under way or after `seconds`."""
        waited = 0.0
        try:
            while self.taken and waited < seconds and self.runs:
                await asyncio.sleep(0.05)
                waited += 0.05
        finally:
            await self.client.aclose()
            await asyncio.to_thread(self.kill)

    def kill(self) -> None:
        if self._process is not None:
            child.end(self._process)
