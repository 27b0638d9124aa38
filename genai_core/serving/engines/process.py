"""An engine: a process that answers OpenAI's requests for one model on a loopback port, vLLM on a socket, and dies with
this one. It asks for a key that it is told with its settings."""

import asyncio
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from genai_core.inference import child
from genai_core.inference.vllm.log import reason_in
from genai_core.inference.vllm.server import PROCESS
from genai_core.serving.engines.client import EngineClient
from genai_core.serving.engines.description import ModelDescription
from genai_core.serving.engines.dialect import Dialect
from genai_core.serving.errors import EngineFailed, EngineMissing, EngineStopped, too_many

LLAMA_CPP = "genai_core.serving.engines.llama_cpp"
OWN = "genai_core.serving.engines.own"
VLLM = PROCESS
NAMES = {LLAMA_CPP: "llama.cpp", OWN: "our own engine", VLLM: "vLLM"}
LOADING = "error loading model: "
"""After which llama.cpp's log says what is wrong with a file."""
START_SECONDS = {LLAMA_CPP: 300.0, OWN: 300.0, VLLM: 1800.0}
"""vLLM compiles on a GPU, and reads what may be large."""
HEALTH_SECONDS = 5.0


class EngineProcess:
    """An engine that runs, with its slots. Requests beyond `slots + queue` are refused. `settings` are what the process
    is told, the `key` that it asks for among them."""

    def __init__(self, module: str, path: Path, name: str, description: ModelDescription, *, settings: dict[str, Any],
                 key: str, context: int, slots: int, queue: int, log: Path, dialect: Dialect):
        self.module, self.name, self.description, self.dialect = module, name, description, dialect
        self.context, self.slots, self.queue = context, slots, queue
        self._path, self._settings, self._key, self._log = path, settings, key, log
        self.free_slots = asyncio.Semaphore(slots)
        """Which requests wait for in their order."""
        self.taken = 0
        """Requests that hold it: those under way and those that wait for a slot."""
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = self._killed = False
        self.client: EngineClient

    def start(self) -> None:
        """Start the process and wait until it answers. Raises EngineFailed, in one line, when it does not, and
        EngineStopped when another thread has killed it meanwhile."""
        self._process = child.launch(self.module, self._log)
        if self._killed:      # before there was a process
            self.kill()
        answer = child.tell(self._process, self._settings, START_SECONDS.get(self.module, START_SECONDS[OWN]))
        if self._killed:
            raise EngineStopped(f"{self.name}: ended while it started")
        if "address" not in answer:
            child.end(self._process)
            self._explain(self._process.wait(), answer, self._log.read_text(errors="replace"))
        self._answered = True
        self.context = answer.get("context", self.context)
        self.client = EngineClient(str(answer["address"]), self._key)

    def _explain(self, code: int, answer: dict[str, str], log: str) -> None:
        """Raise EngineFailed in one line."""
        what = f"{NAMES.get(self.module, self.module)} with {self._path}"
        if "missing" in answer:
            raise EngineMissing(answer["missing"])
        if code == -signal.SIGILL and self.module == LLAMA_CPP:
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
        return [{**message, "content": self.description.without_specials(message["content"])} for message in messages]

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
        return self.runs and await self.client.is_well(HEALTH_SECONDS)

    def take(self) -> None:
        """Hold the engine for a request. Raises Refused when as many wait as may."""
        if self.taken >= self.slots + self.queue:
            raise too_many(self.taken)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1

    async def prompt_tokens(self, path: str, body: dict[str, Any]) -> int:
        """How many tokens a request's prompt has."""
        return await self.dialect.prompt_tokens(self.client, path, body)

    async def sized(self, path: str, body: dict[str, Any], size: int) -> dict[str, Any]:
        """What the engine is sent, with the length of the answer where it needs to be told. `size` is a number of
        tokens that the prompt does not exceed."""
        return await self.dialect.sized(self.client, path, body, self.context, size)

    async def stop(self, seconds: float = 0.0) -> None:
        """End the process, after the requests under way or after `seconds`."""
        waited = 0.0
        try:
            while self.taken and waited < seconds and self.runs:
                await asyncio.sleep(0.05)
                waited += 0.05
        finally:
            await self.client.close()
            await asyncio.to_thread(self.kill)

    def kill(self) -> None:
        """End the process, one that is starting too."""
        self._killed = True
        if self._process is not None:      # one that starts looks at its input later; what starts vLLM does so at once
            child.end(self._process, child.END_SECONDS if self._answered or self.module == VLLM else 0)
