"""A response that an engine writes: it waits for a slot, passes on what comes, and tells the engine when nobody reads.

The engine is read as fast as it writes, whatever the pace of the client: a slow reader costs memory for one answer, not
a slot.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from genai_core.serving.engines.process import EngineProcess
from genai_core.serving.errors import Refused

logger = logging.getLogger("genai_core")

GONE = 499
"""The status that is counted for a client that went away; nobody receives it."""
TAIL = 2048
_GENERATED = re.compile(rb'"(?:predicted_n|completion_tokens)":\s*(\d+)')
_READ = re.compile(rb'"(?:prompt_n|prompt_tokens)":\s*(\d+)')


@dataclass
class Outcome:
    """What became of a request."""

    status: int = 0
    seconds: float = 0.0
    first: float | None = None
    """Seconds until the first piece of the answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Relayed(Response):
    """The answer of an engine that is held for it, and given back in the end.

    `size` is a number of tokens that the prompt does not exceed, `wanted` how many new ones are asked for, 0 where that
    is not said; where both might not fit they are counted. `seconds` are for all since it `arrived` (`time.monotonic`).
    """

    def __init__(self, engine: EngineProcess, path: str, body: dict[str, Any], *, size: int, wanted: int,
                 arrived: float, seconds: float, done: Callable[[Outcome], None]):
        self.engine, self.path = engine, path
        self.engine_body, self.rewrite = engine.dialect.translate(path, body), engine.dialect.rewrite(path, body)
        self.size, self.wanted, self.seconds = size, wanted, seconds
        self.done, self.background = done, None
        self.outcome = Outcome()
        self._arrived = arrived
        self._tail = b""
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        reading = asyncio.create_task(self._read(pieces))
        writing = asyncio.create_task(self._write(pieces, scope, receive, send))
        leaving = asyncio.create_task(_left(receive))
        tasks = (reading, writing, leaving)
        try:
            left = max(0.0, self._arrived + self.seconds - time.monotonic())
            done, _ = await asyncio.wait({writing, leaving}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if writing in done:
                await writing
            elif leaving in done:
                self.outcome.status = GONE
            else:
                reading.cancel()
                writing.cancel()
                await self._too_late(scope, receive, send)
        except OSError:      # the connection broke off
            self.outcome.status = GONE
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._count()

    async def _read(self, pieces: "asyncio.Queue[Any]") -> None:
        """Put the answer into the queue: a response that is whole, or status and media type, pieces, and None."""
        try:
            async with self.engine.free_slots:
                await self._check_length()
                sized = await self.engine.sized(self.path, self.engine_body, self.size)
                async with self.engine.client.post(self.path, sized) as answer:
                    if answer.status != HTTPStatus.OK:
                        refused = self.engine.dialect.refusal(answer.status, await answer.read())
                        pieces.put_nowait(refused.response)
                        return
                    if not self.engine_body.get("stream"):
                        content = await answer.read()
                        self._tail = content
                        pieces.put_nowait(Response(self.rewrite(content) if self.rewrite else content,
                                                   media_type="application/json"))
                        return
                    pieces.put_nowait(answer.status)
                    async for piece in _events(answer) if self.rewrite else answer.content.iter_any():
                        self._tail = (self._tail + piece)[-TAIL:]
                        pieces.put_nowait(self.rewrite(piece) if self.rewrite else piece)
            pieces.put_nowait(None)
        except Refused as refused:
            pieces.put_nowait(refused.response)
        except aiohttp.ClientError as error:
            failed = Refused(503, f"the engine broke off ({type(error).__name__}); ask again", "engine_failed",
                             retry_after=1)
            pieces.put_nowait(failed)
        except Exception as error:      # whatever it is, nobody is left waiting
            logger.warning("%s: %r", self.path, error)
            pieces.put_nowait(Refused(503, "the engine could not be asked; ask again", "engine_failed", retry_after=1))
        finally:
            self.engine.give_back()

    async def _write(self, pieces: "asyncio.Queue[Any]", scope: Scope, receive: Receive, send: Send) -> None:
        first = await pieces.get()
        self.outcome.first = time.monotonic() - self._arrived
        if isinstance(first, Refused):
            first = first.response
        if isinstance(first, Response):
            self._started, self.outcome.status = True, first.status_code
            return await first(scope, receive, send)
        self._started, self.outcome.status = True, first
        await send({"type": "http.response.start", "status": first,
                    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
                                (b"x-accel-buffering", b"no")]})
        more = True
        while more:
            body = b""
            for piece in await _available(pieces):
                if isinstance(piece, Refused):      # too late for a status
                    self.outcome.status = piece.status
                    piece = _event(piece)
                    more = False
                if piece is None:
                    more = False
                    break
                body += piece
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _too_late(self, scope: Scope, receive: Receive, send: Send) -> None:
        late = Refused(503, f"there was no whole answer within {self.seconds:.0f} s", "timeout", retry_after=5)
        self.outcome.status = late.status
        if not self._started:
            return await late.response(scope, receive, send)
        with suppress(TimeoutError):      # one that does not read cannot be told
            async with asyncio.timeout(1):
                await send({"type": "http.response.body", "body": _event(late)})

    async def _check_length(self) -> None:
        wanted = self.wanted
        if self.size + wanted <= self.engine.context:
            return
        has = await self.engine.prompt_tokens(self.path, self.engine_body)
        if has + wanted > self.engine.context or has >= self.engine.context:
            and_wanted = f" and {wanted:,} are asked for" if wanted else ""
            raise Refused(400, f"the prompt has {has:,} tokens{and_wanted}; the model's context is "
                               f"{self.engine.context:,}", "context_length_exceeded",
                          "messages" if "messages" in self.engine_body else "prompt")

    def _count(self) -> None:
        self.outcome.seconds = time.monotonic() - self._arrived
        for pattern, name in ((_GENERATED, "completion_tokens"), (_READ, "prompt_tokens")):
            if found := pattern.findall(self._tail):
                setattr(self.outcome, name, int(found[-1]))
        self.done(self.outcome)


async def _available(pieces: "asyncio.Queue[Any]") -> list[Any]:
    """What has come since the last look, one piece at least: under load they are sent together."""
    found = [await pieces.get()]
    while not pieces.empty():
        found.append(pieces.get_nowait())
    return found


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _events(answer: aiohttp.ClientResponse) -> Any:
    """Whole events of a stream."""
    held = b""
    async for piece in answer.content.iter_any():
        *whole, held = (held + piece).split(b"\n\n")
        for event in whole:
            yield event + b"\n\n"


def _event(refused: Refused) -> bytes:
    return f"data: {json.dumps(refused.body)}\n\ndata: [DONE]\n\n".encode()
