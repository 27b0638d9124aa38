"""Our own engine behind the same requests: `python -m genai_core.serving.engines.own`. How it is spoken to stands in
`process.py`.

For what llama.cpp does not read, recurrent models for example, and where its wheel does not run. It answers one request
at a time, without log-probabilities and without a grammar, which it says when asked for them.
"""

import asyncio
import hmac
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from genai_core.data.chat import encode_prompt, end_ids
from genai_core.errors import InputError
from genai_core.inference.generate import stream, text_pieces
from genai_core.inference.sampling import Sampling
from genai_core.inference.text import OpenedTextModel, encode_document, open_text_model
from genai_core.serving.engines.dialect import DEFAULTS
from genai_core.serving.errors import Refused
from genai_core.serving.server import bound_socket, quiet_server

UNSUPPORTED = ("logprobs", "top_logprobs", "response_format", "logit_bias", "frequency_penalty", "presence_penalty")


class Answering:
    """One answer within `context` tokens: the pieces of its text, counted while they are made."""

    def __init__(self, opened: OpenedTextModel, chat: bool, body: dict[str, Any], context: int):
        self.chat, self.name = chat, body.get("model", "")
        self.prompt = prompt_ids(opened, body)
        room = context - len(self.prompt)
        if room < 1:
            raise Refused(400, f"the prompt has {len(self.prompt):,} tokens and the model's context {context:,}",
                          "context_length_exceeded")
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or opened.model.context_length
        self.limit = min(wanted, room)
        self.tokens = 0
        self.ended = False
        """Whether the model wrote to its end or its limit, where no stop was found before."""
        self.abandoned = False
        """Whether nobody waits for it any more."""
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        given = {**DEFAULTS, **body}
        sampling = Sampling(float(given["temperature"]), int(given["top_k"]), float(given["top_p"]),
                            float(given["min_p"]), float(given.get("repeat_penalty", 1.0)))
        ids = stream(opened.model, self.prompt, self.limit, end_ids(opened.tokenizer), sampling, body.get("seed"))
        stop = body.get("stop") or []
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self.pieces = text_pieces(opened.tokenizer, self._counted(ids), stops)

    def _counted(self, ids: Iterator[int]) -> Iterator[int]:
        for token in ids:
            if self.abandoned:
                return
            self.tokens += 1
            yield token
        self.ended = True

    @property
    def finish(self) -> str:
        return "length" if self.ended and self.tokens >= self.limit else "stop"

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": len(self.prompt), "completion_tokens": self.tokens,
                "total_tokens": len(self.prompt) + self.tokens}

    def whole(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return self._shape("chat.completion" if self.chat else "text_completion",
                           [{"index": 0, **said, "logprobs": None, "finish_reason": self.finish}], usage=self.usage)

    def events(self, with_usage: bool) -> Iterator[str]:
        if self.chat:
            yield self._event({"delta": {"role": "assistant", "content": ""}}, None)
        for piece in self.pieces:
            yield self._event({"delta": {"content": piece}} if self.chat else {"text": piece}, None)
        counts = {"timings": {"predicted_n": self.tokens, "prompt_n": len(self.prompt)}}
        yield self._event({"delta": {}} if self.chat else {"text": ""}, self.finish, **counts)
        if with_usage:
            yield f"data: {json.dumps(self._shape(self._chunk, [], usage=self.usage, **counts))}\n\n"
        yield "data: [DONE]\n\n"

    @property
    def _chunk(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _event(self, said: dict[str, Any], finish: str | None, **more: Any) -> str:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps(self._shape(self._chunk, [choice], **more))}\n\n"

    def _shape(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.name, "choices": choices, **more}


def prompt_ids(opened: OpenedTextModel, body: dict[str, Any]) -> list[int]:
    if "messages" in body:
        return encode_prompt(opened.tokenizer, body["messages"])
    prompt = body.get("prompt", body.get("content", ""))
    if isinstance(prompt, list):
        if outside := [token for token in prompt if not 0 <= token < opened.tokenizer.get_vocab_size()]:
            raise Refused(400, f"prompt: {outside[0]} is no token of this model", "invalid_value", "prompt")
        return prompt
    return encode_document(opened.tokenizer, prompt)


def create_app(opened: OpenedTextModel, key: str, context: int) -> FastAPI:
    def closed(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {key}".encode()):
            raise Refused(401, "wrong key")

    app = FastAPI(openapi_url=None, dependencies=[Depends(closed)])

    @app.exception_handler(Refused)
    async def refuse(_: Request, refused: Refused) -> Response:
        return refused.response

    async def answer(request: Request, body: dict[str, Any], chat: bool) -> Response:
        if missing := [name for name in UNSUPPORTED if body.get(name)]:
            raise Refused(400, f"{missing[0]}: our own engine, which answers for this model, does not have it",
                          "unsupported_parameter", missing[0])
        answering = Answering(opened, chat, body, context)
        if not body.get("stream"):
            return JSONResponse(await whole(request, answering))
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return StreamingResponse(answering.events(with_usage), media_type="text/event-stream")

    async def whole(request: Request, answering: Answering) -> dict[str, Any]:
        made = asyncio.create_task(asyncio.to_thread(answering.whole))
        while not made.done():
            await asyncio.wait({made}, timeout=0.2)
            answering.abandoned = await request.is_disconnected()
        return await made

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: dict[str, Any]) -> Response:
        if opened.produces != "chat":
            raise Refused(400, "this model continues text and does not chat; ask /v1/completions", "unsupported_value",
                          "model")
        return await answer(request, body, chat=True)

    @app.post("/v1/completions")
    async def complete(request: Request, body: dict[str, Any]) -> Response:
        return await answer(request, body, chat=False)

    @app.post("/v1/chat/completions/input_tokens")
    def count_chat(body: dict[str, Any]) -> dict[str, int]:
        return {"input_tokens": len(prompt_ids(opened, body))}

    @app.post("/tokenize")
    def tokenize(body: dict[str, Any]) -> dict[str, list[int]]:
        return {"tokens": prompt_ids(opened, body)}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        opened = open_text_model(Path(given["path"]), torch.device("cpu"))
    except InputError as error:
        os.write(out, json.dumps({"error": str(error)}).encode() + b"\n")
        return
    torch.set_num_threads(given["threads"])
    listener = bound_socket("127.0.0.1", 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    longest = given["context"] if opened.model.unbounded_context else min(given["context"], opened.model.context_length)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    os.write(out, json.dumps({"address": address, "context": longest}).encode() + b"\n")
    os.close(out)
    quiet_server(create_app(opened, given["key"], longest)).run(sockets=[listener])


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
