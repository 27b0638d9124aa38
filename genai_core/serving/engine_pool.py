"""Which models are on offer and which engines run for them. An engine starts when it is first asked for; the one that
serves runs from the start, and changes for another without a request in between being lost."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genai_core.errors import InputError
from genai_core.serving.engine import EngineProcess
from genai_core.serving.errors import Refused

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
Launch = Callable[[ServedModel], EngineProcess]
"""Starts the engine of a model; it blocks meanwhile."""


class EnginePool:
    """The engines of the models on offer."""

    def __init__(self, models: ServedModels, launch: Launch, drain_seconds: float):
        self.models = tuple(models)
        self.moves = 0
        """How often what serves has changed."""
        self._launch, self._drain_seconds = launch, drain_seconds
        self._engines: dict[str, EngineProcess] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._coming: set[str] = set()
        """What is about to be on offer."""
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def main(self) -> ServedModel:
        return self.models[0]

    @property
    def engines(self) -> dict[str, EngineProcess]:
        return self._engines

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
        """The engine of a model, started if it does not run, held until `give_back`."""
        while True:
            engine = self._engines.get(model.key)
            if engine is not None and engine.runs:
                engine.take()      # no other task runs between the look and this
                return engine
            await self.start(model)

    async def start(self, model: ServedModel) -> None:
        """Start the engine of a model unless it runs. Raises EngineFailed when it does not."""
        async with self._starting.setdefault(model.key, asyncio.Lock()):
            engine = self._engines.get(model.key)
            if engine is not None:
                if engine.runs:
                    return
                logger.warning("the engine of %s has ended: starting it again", model.name)
                await self._engines.pop(model.key).stop()
            self._engines[model.key] = await asyncio.to_thread(self._launch, model)
        if model.key not in {each.key for each in self.models} and model.key not in self._coming:
            asyncio.get_running_loop().call_soon(self._retire, model.key)      # it moved away while this started

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
        kept = {model.key for model in self.models}
        for key in [key for key in self._engines if key not in kept]:
            self._retire(key)

    def _retire(self, key: str) -> None:
        """End an engine after the requests that it has."""
        if engine := self._engines.pop(key, None):
            task = asyncio.create_task(engine.stop(self._drain_seconds))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def answers(self) -> bool:
        """Whether the engine of the model that serves answers."""
        engine = self._engines.get(self.main.key)
        return engine is not None and await engine.answers()

    def is_well(self) -> bool:
        engine = self._engines.get(self.main.key)
        return engine is not None and engine.runs

    async def look_after(self) -> None:
        """Start again the engine that serves, if it has ended."""
        if not self.is_well():
            try:
                await self.start(self.main)
            except InputError as error:
                logger.error("%s", error)

    async def stop(self) -> None:
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, *(engine.stop() for engine in self._engines.values()),
                             return_exceptions=True)
        self._engines.clear()
