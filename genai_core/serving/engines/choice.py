"""Which engine answers for a model: the one that is asked for, or the fastest that reads it."""

import logging
import re
import secrets
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from genai_core.data.chat import end_ids
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.inference.vllm.command import VllmCannotRead, VllmMissing, find_vllm, require_readable, server_arguments
from genai_core.mapping import usable_cores
from genai_core.serving.engines.description import LONGEST_CONTEXT, ModelDescription, describe
from genai_core.serving.engines.dialect import Dialect, VllmDialect
from genai_core.serving.engines.gguf_cache import gguf_of
from genai_core.serving.engines.process import LLAMA_CPP, OWN, VLLM, EngineProcess
from genai_core.serving.errors import EngineFailed, EngineMissing

logger = logging.getLogger("genai_core")

EngineName = Literal["auto", "llama.cpp", "vllm", "own"]
Announce = Callable[[EngineProcess], None]


def start_engine(path: Path, name: str, *, slots: int, queue: int, context: int | None, threads: int | None,
                 folder: Path, engine: EngineName = "auto", announce: Announce = lambda _: None) -> EngineProcess:
    """Start what answers for a model directory or a GGUF file.

    `auto` is vLLM where there are a GPU, vLLM's command and a directory that it reads, else llama.cpp, or where that
    cannot our own engine, slower. `threads` are all cores but one where it is None: llama.cpp's threads wait for each
    other without sleeping, which takes long where they share cores with the front and with others. `folder` takes logs
    and files that are written. `announce` is given each engine before its process starts, which another thread may then
    kill. Raises InputError, in one line, when the engine that is asked for cannot, and when none
    can.
    """
    starting = _Starting(path, name, slots, queue, context, threads or max(1, usable_cores() - 1), folder,
                         announce)
    folder.mkdir(parents=True, exist_ok=True)
    if engine == "vllm":
        return starting.vllm()
    if engine == "own":
        return starting.own()
    if engine == "llama.cpp":
        return starting.llama_cpp()
    if vllm_pays(path):
        try:
            return starting.vllm()
        except EngineFailed as reason:
            logger.warning("%s: llama.cpp answers for %s", reason, name)
    try:
        return starting.llama_cpp()
    except EngineMissing as reason:
        if not path.is_dir():
            raise EngineFailed(f"{reason}; given a model directory in place of the GGUF file, our own engine would "
                               "answer, slower") from None
        logger.warning("%s: our own engine answers for %s, one request at a time and slower", reason, name)
        return starting.own()


def vllm_pays(path: Path) -> bool:
    """Whether vLLM is taken unasked: llama.cpp's wheel does not use the GPU that is there."""
    if not torch.cuda.is_available():
        return False
    try:
        require_readable(path, on_gpu=True)
        find_vllm()
    except (VllmCannotRead, VllmMissing):
        return False
    return True


class _Starting:
    """What is to be served, and how each engine is started for it."""

    def __init__(self, path: Path, name: str, slots: int, queue: int, context: int | None, threads: int, folder: Path,
                 announce: Announce):
        self.path, self.name, self.slots, self.queue, self.threads = path, name, slots, queue, threads
        self.folder, self.announce = folder, announce
        self.longest = context or LONGEST_CONTEXT
        self.key = secrets.token_urlsafe(32)

    @cached_property
    def description(self) -> ModelDescription:
        return describe(self.path)

    @property
    def context(self) -> int:
        return min(self.description.context, self.longest)

    def vllm(self) -> EngineProcess:
        on_gpu = torch.cuda.is_available()
        directory = require_readable(self.path, on_gpu)
        arguments = server_arguments(directory, self.name, context=self.context, slots=self.slots, on_gpu=on_gpu)
        environment = {"VLLM_API_KEY": self.key, "OMP_NUM_THREADS": str(self.threads)}
        settings = {"command": [*find_vllm(), *arguments], "environment": environment, "scratch": None}
        dialect = VllmDialect(end_ids(load_tokenizer(directory)), self.description.empty_prompt)
        return self._started(VLLM, "vllm", directory, self.slots, settings, dialect)

    def llama_cpp(self) -> EngineProcess:
        path = gguf_of(self.path, self.folder / "gguf")
        return self._started(LLAMA_CPP, "llama.cpp", path, self.slots, self._settings(path, self.slots))

    def own(self) -> EngineProcess:
        return self._started(OWN, "own", self.path, 1, self._settings(self.path, 1))

    def _settings(self, path: Path, slots: int) -> dict[str, Any]:
        return {"path": str(path), "name": self.name, "key": self.key, "context": self.context, "slots": slots,
                "threads": self.threads}

    def _started(self, module: str, engine_name: EngineName, path: Path, slots: int, settings: dict[str, Any],
                 dialect: Dialect | None = None) -> EngineProcess:
        log = self.folder / "logs" / f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', self.name)}.{engine_name}.log"
        engine = EngineProcess(module, path, self.name, self.description, settings=settings, key=self.key,
                               context=self.context, slots=slots, queue=self.queue, log=log,
                               dialect=dialect or Dialect(self.description.empty_prompt))
        self.announce(engine)
        engine.start()
        return engine
