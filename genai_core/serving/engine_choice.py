"""Which engine answers for a model: the one that is asked for, or the fastest that reads it."""

import logging
from pathlib import Path
from typing import Literal

import torch

from genai_core.data.chat import end_ids
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.inference.vllm.command import VllmCannotRead, VllmMissing, find_vllm, require_readable, server_arguments
from genai_core.mapping import usable_cores
from genai_core.models.opened import served
from genai_core.serving.engine import LLAMA_CPP, OWN, VLLM, EngineProcess
from genai_core.serving.errors import EngineFailed, EngineMissing
from genai_core.serving.files import LONGEST_CONTEXT, context_of, gguf_of
from genai_core.serving.vllm_dialect import VllmDialect

logger = logging.getLogger("genai_core")

EngineName = Literal["auto", "llama.cpp", "vllm", "own"]


def start_engine(path: Path, name: str, *, slots: int, queue: int, context: int | None, threads: int | None,
                 folder: Path, engine: EngineName = "auto") -> EngineProcess:
    """Start what answers for a model directory or a GGUF file.

    `auto` is vLLM where there are a GPU, vLLM's command and a directory that it reads, else llama.cpp, or where that
    cannot our own engine, slower. `threads` are all cores but one where it is None: llama.cpp's threads wait for each
    other without sleeping, which takes long where they share cores with the front and with others. `folder` takes logs
    and files that are written. Raises InputError, in one line, when the engine that is asked for cannot, and when none
    can.
    """
    starting = _Starting(path, name, slots, queue, context, threads or max(1, usable_cores() - 1), folder)
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

    def __init__(self, path: Path, name: str, slots: int, queue: int, context: int | None, threads: int, folder: Path):
        self.path, self.name, self.slots, self.queue, self.threads = path, name, slots, queue, threads
        self.context, self.folder = context, folder

    def vllm(self) -> EngineProcess:
        on_gpu = torch.cuda.is_available()
        directory = require_readable(self.path, on_gpu)
        arguments = server_arguments(directory, self.name, context=self._length(), slots=self.slots, on_gpu=on_gpu)
        return self._started(VLLM, directory, self.slots, VllmDialect(end_ids(load_tokenizer(directory))),
                             command=[*find_vllm(), *arguments])

    def llama_cpp(self) -> EngineProcess:
        return self._started(LLAMA_CPP, gguf_of(self.path, self.folder / "gguf"), self.slots)

    def own(self) -> EngineProcess:
        return self._started(OWN, self.path, 1)

    def _length(self) -> int:
        return min(context_of(self.path), self.context or LONGEST_CONTEXT)

    def _started(self, module: str, path: Path, slots: int, dialect: VllmDialect | None = None, **more: list[str]
                 ) -> EngineProcess:
        engine = EngineProcess(module, path, self.name, context=self._length(), slots=slots, queue=self.queue,
                               threads=self.threads, log=self.folder / "engine.log", dialect=dialect, **more)
        if self.path.is_dir() and (served(self.path) / "tokenizer.json").is_file():
            engine.tokenizer = load_tokenizer(served(self.path))
        engine.start()
        return engine
