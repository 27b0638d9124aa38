"""The server around the engines: OpenAI's paths, the page, health, metrics and what people think of answers.

Requests are read and checked here, and answered by the engine of their model (`pool.py`, `relay.py`).
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from genai_core.serving.engines.dialect import LENGTH_FIELDS
from genai_core.serving.engines.process import NAMES
from genai_core.serving.errors import Refused, first_line
from genai_core.serving.front import page
from genai_core.serving.front.access import AccessControl
from genai_core.serving.front.feedback import judged_by, respond
from genai_core.serving.front.metrics import Metrics
from genai_core.serving.front.relay import Relayed
from genai_core.serving.front.requests import ChatRequest, CompletionRequest, read_request
from genai_core.serving.limits import Limits
from genai_core.serving.pool import EnginePool, ServedModel

PATHS = ("/v1/chat/completions", "/v1/completions", "/feedback")
"""Whose refusals are counted by name: every name that somebody invents would be one more line."""


def create_app(pool: EnginePool, limits: Limits, *, key: str, host: str, feedback: Path) -> ASGIApp:
    """The app. Without a key everybody on this machine is let in; choices and thumbs go to the folder `feedback`."""
    metrics = Metrics(pool)
    began = int(time.time())

    async def answer(request: Request, kind: type[ChatRequest] | type[CompletionRequest]) -> Response:
        path = request.url.path
        given = read_request(kind, await _body(request, limits))
        arrived = time.monotonic()
        model = pool.find(given.model)
        if kind is ChatRequest and not model.chats:
            raise Refused(400, f"{model.name} continues text and does not chat; ask /v1/completions",
                          "unsupported_value", "model")
        body = {**given.body(), "model": model.name}
        wanted = _limit_tokens(body, limits)
        try:
            async with asyncio.timeout(limits.seconds):
                engine = await pool.hold(model)
        except Refused:
            raise
        except TimeoutError:
            raise Refused(503, f"the engine of {model.name} did not start within {limits.seconds:.0f} s", "timeout",
                          retry_after=5) from None
        except Exception as error:      # an engine that does not start, or a registry that is away
            raise Refused(503, first_line(error), "engine_failed", retry_after=30) from None
        if kind is ChatRequest:
            body["messages"] = engine.cleaned(body["messages"])
        return Relayed(engine, path, body, size=given.size, wanted=wanted, arrived=arrived, seconds=limits.seconds,
                       done=lambda outcome: metrics.count(model.name, path, outcome))

    async def chat(request: Request) -> Response:
        return await answer(request, ChatRequest)

    async def complete(request: Request) -> Response:
        return await answer(request, CompletionRequest)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(model, began) for model in pool.models]})

    async def model(request: Request) -> Response:
        return JSONResponse(_model(pool.find(request.path_params["name"]), began))

    async def details(_: Request) -> Response:
        return JSONResponse({"models": [_details(model, pool) for model in pool.models],
                             "feedback": str(feedback)})

    async def lineage(request: Request) -> Response:
        model = pool.find(request.path_params["name"])
        if model.lineage is None:
            raise Refused(404, f"{model.name} is in no registry, so nobody knows what it comes from", "no_lineage")
        try:
            return Response(await asyncio.to_thread(model.lineage), media_type="text/plain; charset=utf-8")
        except Exception as error:      # whatever a registry raises
            raise Refused(503, f"the registry does not answer: {first_line(error)}", "registry_away") from None

    async def opinion(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(respond, feedback, await _body(request, limits)), 201)

    async def judged(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(judged_by, feedback, request.query_params.get("labeller", "")))

    async def health(_: Request) -> Response:
        await pool.look_after()
        well = await pool.answers()
        return JSONResponse({"status": "ok" if well else "no engine", "model": pool.main.name,
                             "version": pool.main.key}, 200 if well else 503)

    async def prometheus(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail.lower()}")
        assert isinstance(error, Refused)
        metrics.refused(request.url.path if request.url.path in PATHS else "other", error.status)
        return error.response

    app = Starlette(exception_handlers={Refused: refuse, HTTPException: refuse}, routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/models", models), Route("/v1/models/{name:path}", model), Route("/health", health),
        Route("/metrics", prometheus), Route("/details", details), Route("/lineage/{name:path}", lineage),
        Route("/feedback", opinion, methods=["POST"]), Route("/feedback", judged), Route("/", page.respond)])
    return AccessControl(app, key, host, metrics.refused)


async def _body(request: Request, limits: Limits) -> bytes:
    """The body of a request. Raises Refused when it is too large or takes too long to arrive."""
    too_large = Refused(413, f"the body is larger than {limits.body:,} bytes", "request_too_large")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {limits.upload_seconds:.0f} s", "timeout") from None
    except ClientDisconnect:
        raise Refused(400, "the body broke off") from None
    return bytes(body)


def _limit_tokens(body: dict[str, Any], limits: Limits) -> int:
    """The number of new tokens that is asked for, 0 for none, after a look at the limit."""
    given = [name for name in LENGTH_FIELDS if name in body]
    field = given[0] if given else "max_tokens"
    wanted = int(body.get(field, 0))
    for other in given[1:]:      # of two the newer name counts
        del body[other]
    if limits.tokens is not None:
        if wanted > limits.tokens:
            raise Refused(400, f"{field}: an answer here has at most {limits.tokens:,} tokens", "invalid_value", field)
        body.setdefault(field, limits.tokens)
    return wanted


def _model(model: ServedModel, began: int) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": began, "owned_by": model.key}


def _details(model: ServedModel, pool: EnginePool) -> dict[str, Any]:
    engine = pool.engines.get(model.key)
    return {"name": model.name, "aliases": list(model.aliases), "title": model.title, "version": model.key,
            "chats": model.chats, "size": model.size, "figures": model.figures, "page": model.page,
            "lineage": model.lineage is not None, "engine": NAMES.get(engine.module, "") if engine else "",
            "context": engine.context if engine else None}
