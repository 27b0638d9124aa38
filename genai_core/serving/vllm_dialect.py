"""How vLLM's server is asked what OpenAI's API asks, and how its answers become those of the other engines."""

import json
from collections.abc import Collection
from typing import Any

import httpx

from genai_core.serving.dialect import CHAT, Body, Dialect, Rewrite
from genai_core.serving.errors import Refused

TEMPERATURE = 0.8
"""Where a request names none, as the other engines have it."""
TOO_LONG = "maximum context length"
_NO_CHOICES = b'"choices":[]'
_ERROR = b'data: {"error"'


class VllmDialect(Dialect):
    """vLLM's fields, usage of every stream, and refusals. `ends` are the tokens that end an answer."""

    def __init__(self, ends: Collection[int] = ()):
        self.ends = sorted(ends)

    def asked(self, path: str, body: Body) -> Body:
        asked = {"temperature": TEMPERATURE, **body, "stop_token_ids": self.ends}
        if (penalty := asked.pop("repeat_penalty", None)) is not None:
            asked["repetition_penalty"] = penalty
        if body.get("stream"):      # tokens are counted whoever asks for them
            asked["stream_options"] = {"include_usage": True}
        return asked

    def rewrite(self, path: str, body: Body) -> Rewrite | None:
        if not body.get("stream"):
            return None
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        def rewritten(event: bytes) -> bytes:
            if event.startswith(_ERROR):
                return f"data: {json.dumps(self.refusal(400, event[len(b'data: '):]).body)}\n\n".encode()
            return b"" if not wants_usage and _NO_CHOICES in event else event

        return rewritten

    async def prompt_tokens(self, client: httpx.AsyncClient, path: str, body: Body) -> int:
        if path != CHAT and isinstance(body["prompt"], list):
            return len(body["prompt"])
        given: dict[str, Any] = {"messages": body["messages"]} if path == CHAT else {"prompt": body["prompt"]}
        answer = await client.post("/tokenize", json={"model": body["model"], **given})
        return int(answer.json()["count"]) if answer.is_success else 0

    async def sized(self, client: httpx.AsyncClient, path: str, body: Body, context: int) -> Body:
        if path == CHAT or "max_tokens" in body:
            return body
        # a completion would have sixteen tokens
        return {**body, "max_tokens": max(1, context - await self.prompt_tokens(client, path, body))}

    def refusal(self, status: int, content: bytes) -> Refused:
        refused = super().refusal(status, content)
        if refused.status == 400 and TOO_LONG in refused.message:
            return Refused(400, refused.message, "context_length_exceeded", refused.param)
        return refused
