"""Which models are on offer and which engines run for them. An engine starts when it is first asked for; the one that
serves runs from the start, and changes for another without a request in between being lost."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genai_core.serving.engines.process import EngineProcess
from genai_core.serving.errors import EngineFailed, EngineStopped, Refused, first_line, too_many

logger = logging.getLogger("genai_core")


@dataclass(frozen=True)
class ServedModel:
    """A model that may be asked for."""

    name: str
    """What answers call it."""
    key: str
    """What tells it from other models of this name: a version, or a path."""
    locate: Callable[[], Path]
    """Its directory or GGUF file, fetched when it is not here."""
    aliases: tuple[str, ...] = ()
    """Other names that a request may use."""
    title: str = ""
    chats: bool = True
    size: int = 0
    """Bytes of its weights; 0 where that is not known yet."""
    figures: dict[str, float] = field(default_factory=dict)
    page: str = ""
    """Address of its page in the registry; empty where that has none."""
    lineage: Callable[[], str] | None = None
    """What it comes from, as text."""


ServedModels = Sequence[ServedModel]
"""The first one serves."""
Announce = Callable[[EngineProcess], None]
Launch = Callable[[ServedModel, Announce], EngineProcess]
"""Starts the engine of a model, which it announces before its process starts; it blocks meanwhile."""
PAUSE_SECONDS = 10.0
"""In which a model that could not start is not started again."""


@dataclass(frozen=True)
class _Failure:
    """Why a model did not start, and until when that is taken for the answer."""

    reason: str
    until: float


class EnginePool:
    """The engines of the models on offer. Requests that wait for one to start are refused beyond `capacity`."""

    def __init__(self, models: ServedModels, launch: Launch, drain_seconds: float, capacity: int):
        self.models = tuple(models)
        self.engines: dict[str, EngineProcess] = {}
        """Those that run, by the keys of their models."""
        self.moves = 0
        """How often what serves has changed."""
        self._launch, self._drain_seconds, self._capacity = launch, drain_seconds, capacity
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._launching: dict[str, EngineProcess] = {}
        """Engines that do not answer yet; filled by the threads that start them."""
        self._failures: dict[str, _Failure] = {}
        self._waiting: Counter[str] = Counter()
        """Requests that wait for the start of their engine, by the key of the model."""
        self._coming: set[str] = set()
        """What is about to be on offer."""
        self._retiring: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def main(self) -> ServedModel:
        return self.models[0]

    def find(self, name: str | None) -> ServedModel:
        """The model of this name; the one that serves for none. Raises Refused for a name that is not on offer."""
        if name is None:
            return self.main
        for model in self.models:
            if name == model.name or name in model.aliases:
                return model
        there = ", ".join(model.name for model in self.models)
        raise Refused(404, f"there is no model {name[:200]!r}; there are {there}", "model_not_found", "model")

    async def hold(self, model: ServedModel) -> EngineProcess:
        """The engine of a model, started if it does not run, held until `give_back`. Raises Refused when as many wait
        for it as may, EngineFailed when it does not start."""
        if (engine := self._running(model.key)) is not None:
            engine.take()      # no other task runs between the look and this
            return engine
        if self._waiting[model.key] >= self._capacity:
            raise too_many(self._waiting[model.key])
        self._waiting[model.key] += 1
        try:
            while (engine := self._running(model.key)) is None:
                await self.start(model)
            engine.take()
            return engine
        finally:
            self._waiting[model.key] -= 1
            self._retire_unless_wanted(model.key)

    def _running(self, key: str) -> EngineProcess | None:
        engine = self.engines.get(key)
        return engine if engine is not None and engine.runs else None

    async def start(self, model: ServedModel) -> None:
        """Start the engine of a model unless it runs; whoever waits may go away without its start being lost. Raises
        EngineFailed when it does not start, and without a try for some seconds after that."""
        if self._running(model.key):
            return
        if failure := self._recent_failure(model.key):
            raise EngineFailed(failure.reason)
        if model.key not in self._starts:
            self._starts[model.key] = task = asyncio.create_task(self._start(model))
            task.add_done_callback(lambda task: self._finish_start(model.key, task))
        await asyncio.shield(self._starts[model.key])

    async def _start(self, model: ServedModel) -> None:
        if model.key in self.engines:
            logger.warning("the engine of %s has ended: starting it again", model.name)
            await self.engines.pop(model.key).stop()

        def announce(engine: EngineProcess) -> None:
            self._launching[model.key] = engine
            if self._ended:      # after the look of `stop`
                raise EngineStopped(f"{model.name}: the server ends")

        try:
            self.engines[model.key] = await asyncio.to_thread(self._launch, model, announce)
        finally:
            self._launching.pop(model.key, None)

    def _finish_start(self, key: str, task: "asyncio.Task[None]") -> None:
        del self._starts[key]
        if not task.cancelled() and (error := task.exception()):
            self._failures[key] = _Failure(first_line(error), time.monotonic() + PAUSE_SECONDS)
        else:
            self._failures.pop(key, None)
            self._retire_unless_wanted(key)

    def _recent_failure(self, key: str) -> _Failure | None:
        failure = self._failures.get(key)
        return failure if failure and time.monotonic() < failure.until else None

    def _retire_unless_wanted(self, key: str) -> None:
        """End an engine whose model is on offer no more, once those who waited for its start have it and after the
        requests that it has."""
        if key in {model.key for model in self.models} | self._coming or self._waiting[key]:
            return
        if engine := self.engines.pop(key, None):
            task = asyncio.create_task(engine.stop(self._drain_seconds))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def follow(self, models: ServedModels) -> None:
        """Serve these from now on: the engine of the first one answers before any request is given to it, and those of
        models that are on offer no more end after the requests that they have."""
        self._coming = {models[0].key}
        try:
            await self.start(models[0])
        finally:
            self._coming = set()
        self.moves += models[0].key != self.main.key
        self.models = tuple(models)
        for key in list(self.engines):
            self._retire_unless_wanted(key)

    async def answers(self) -> bool:
        """Whether the engine of the model that serves answers."""
        engine = self.engines.get(self.main.key)
        return engine is not None and await engine.answers()

    async def look_after(self) -> None:
        """Start again the engine that serves, if it has ended."""
        if not self._running(self.main.key) and not self._recent_failure(self.main.key):
            try:
                await self.start(self.main)
            except Exception as error:      # an engine that does not start, or a registry that is away
                logger.error("%s", first_line(error))

    async def stop(self) -> None:
        """End all engines, those that are starting too."""
        self._ended = True
        await asyncio.gather(*(asyncio.to_thread(engine.kill) for engine in [*self._launching.values()]))
        await asyncio.gather(*self._starts.values(), return_exceptions=True)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, *(engine.stop() for engine in self.engines.values()),
                             return_exceptions=True)
        self.engines.clear()
