"""How vLLM's server is asked what OpenAI's API asks, and how its answers become those of the other engines."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import httpx

from genai_core.serving.dialect import CHAT, LENGTH_FIELDS, Body, Dialect, Rewrite
from genai_core.serving.errors import Refused

TOO_LONG = ("context length", "max_model_len")
"""What a refusal of a prompt that is too long says, in one release or another."""
_NO_CHOICES = b'"choices":[]'
_ERROR = b'data: {"error"'


class VllmDialect(Dialect):
    """vLLM's fields, usage of every stream, and refusals. `ends` are the tokens that end an answer."""

    def __init__(self, ends: Collection[int] = (), empty_prompt: Sequence[int] = ()):
        super().__init__(empty_prompt)
        self.ends = sorted(ends)

    def translate(self, path: str, body: Body) -> Body:
        translated = {**self._complete(body), "stop_token_ids": self.ends}
        if (penalty := translated.pop("repeat_penalty", None)) is not None:
            translated["repetition_penalty"] = penalty
        if body.get("stream"):      # tokens are counted whoever asks for them
            translated["stream_options"] = {"include_usage": True}
        return translated

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

    async def sized(self, client: httpx.AsyncClient, path: str, body: Body, context: int, size: int) -> Body:
        if path == CHAT and not any(name in body for name in LENGTH_FIELDS):
            return body
        # it refuses a limit for which there is no room, and a completion without one would have sixteen tokens
        return await self._fitted(client, path, body, context, size)

    def refusal(self, status: int, content: bytes) -> Refused:
        refused = super().refusal(status, content)
        if refused.status == 400 and any(words in refused.message for words in TOO_LONG):
            return Refused(400, refused.message, "context_length_exceeded", refused.param)
        return refused
