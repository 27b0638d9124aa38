"""Serving until a signal comes: the engine first, then the port, then whoever asks; and the registry in the corner of
the eye."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from genai_core.serving.engines.choice import Announce, EngineName, start_engine
from genai_core.serving.engines.process import EngineProcess
from genai_core.serving.errors import first_line
from genai_core.serving.front.app import create_app
from genai_core.serving.limits import Limits
from genai_core.serving.pool import EnginePool, ServedModel, ServedModels
from genai_core.serving.server import quiet_server

logger = logging.getLogger("genai_core")

Look = Callable[[str], ServedModels | None]
"""What is on offer now; None while the model that serves is still the one with this key."""
LONGEST_PAUSE = 60.0


def serve(listener: socket.socket, models: ServedModels, *, limits: Limits, key: str, host: str, folder: Path,
          feedback: Path, look: Look | None = None, look_seconds: float = 2.0,
          ready: Callable[[EnginePool], None] = lambda _: None, engine: EngineName = "auto") -> None:
    """Serve the first of `models`, and the others when they are asked for, until SIGINT or SIGTERM; requests under way
    have `limits.grace_seconds` then.

    `look` is asked every `look_seconds` what is on offer. `folder` takes logs and files that are written for an engine.
    `engine` is as in `start_engine`.
    Raises InputError, in one line, when the first engine does not start.
    """
    def launch(model: ServedModel, announce: Announce) -> EngineProcess:
        return start_engine(model.locate(), model.name, slots=limits.slots, queue=limits.queue, context=limits.context,
                            threads=limits.threads, folder=folder, engine=engine, announce=announce)

    async def run() -> None:
        pool = EnginePool(models, launch, limits.seconds, limits.slots + limits.queue)
        server = quiet_server(create_app(pool, limits, key=key, host=host, feedback=feedback),
                              limits.grace_seconds)
        ended = threading.Event()
        try:
            await pool.start(pool.main)
            if look is not None:
                threading.Thread(target=_follow, args=(pool, look, look_seconds, asyncio.get_running_loop(), ended),
                                 daemon=True).start()
            ready(pool)
            await server.serve(sockets=[listener])
        finally:
            ended.set()
            await pool.stop()

    asyncio.run(run())


def _follow(pool: EnginePool, look: Look, seconds: float, loop: asyncio.AbstractEventLoop,
            ended: threading.Event) -> None:
    """In a thread of its own: a registry may take its time. What serves goes on serving while it cannot be asked."""
    told, pause = "", seconds
    while not ended.wait(pause):
        try:
            models = look(pool.main.key)
            if models and not ended.is_set():
                asyncio.run_coroutine_threadsafe(pool.follow(models), loop).result()
                logger.warning("now serving %s", models[0].key)
            told, pause = "", seconds
        except Exception as error:      # whatever a registry raises
            text = first_line(error)
            if text != told and not ended.is_set():
                logger.warning("%s goes on serving: %s", pool.main.key, text)
            told, pause = text, min(2 * pause, LONGEST_PAUSE)
