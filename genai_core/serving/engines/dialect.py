"""How an engine is asked what OpenAI's API asks, and how its answers become the same of all. llama.cpp has one dialect,
which our own engine speaks too, vLLM another."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from genai_core.serving.engines.client import EngineClient
from genai_core.serving.errors import Refused

Body = dict[str, Any]
Rewrite = Callable[[bytes], bytes]
"""What an engine answers, or an event of a stream, to what the client gets."""
CHAT = "/v1/chat/completions"
DEFAULTS: Body = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""How tokens are drawn where a request does not say: each engine has defaults of its own."""
CONTEXT_STEP = 256
"""llama.cpp rounds the context up to a multiple of this."""
LENGTH_FIELDS = ("max_completion_tokens", "max_tokens")
"""Fields for the length of an answer, of which the first counts."""
TOO_LONG = ("context length", "max_model_len")
"""What a refusal of a prompt that is too long says, in one release or another."""
_NO_CHOICES = b'"choices":[]'
_ERROR = b'data: {"error"'


class Dialect:
    """The requests and answers of an engine, as llama.cpp has them. `empty_prompt` are the token ids that stand for an
    empty text: some engines answer one with nothing, some refuse it."""

    def __init__(self, empty_prompt: Sequence[int] = ()):
        self.empty_prompt = list(empty_prompt)

    def translate(self, path: str, body: Body) -> Body:
        """The body that the engine is sent for a request."""
        translated = self._complete(body)
        if "seed" in body:      # what another request left would change the last digits
            translated["cache_prompt"] = False
        if path != CHAT and body.get("logprobs") is not None:      # it gives none for 0
            translated["logprobs"] = max(1, body["logprobs"])
        return translated

    def _complete(self, body: Body) -> Body:
        """The body with what is the same for every engine, whatever its own defaults."""
        complete = {**DEFAULTS, **body}
        if body.get("prompt") == "" and self.empty_prompt:
            complete["prompt"] = self.empty_prompt
        return complete

    def rewrite(self, path: str, body: Body) -> Rewrite | None:
        """What becomes of its answer to the client's `body`; None where that is passed on as it is."""
        return LegacyLogprobs(body["logprobs"]) if path != CHAT and body.get("logprobs") is not None else None

    async def prompt_tokens(self, client: EngineClient, path: str, body: Body) -> int:
        """How many tokens a request's prompt has; 0 where the engine does not say."""
        if path == CHAT:
            counted = await client.ask(f"{path}/input_tokens", {"messages": body["messages"]})
            return int(counted["input_tokens"]) if counted else 0
        if isinstance(body["prompt"], list):
            return len(body["prompt"])
        cut = await client.ask("/tokenize", {"content": body["prompt"], "add_special": True, "parse_special": True})
        return len(cut["tokens"]) if cut else 0

    async def sized(self, client: EngineClient, path: str, body: Body, context: int, size: int) -> Body:
        """The body with an answer that fits into the context, where the engine would write or refuse a longer one.
        `size` is a number of tokens that the prompt does not exceed."""
        return body if context % CONTEXT_STEP == 0 else await self._fitted(client, path, body, context, size)

    async def _fitted(self, client: EngineClient, path: str, body: Body, context: int, size: int) -> Body:
        field = next((name for name in LENGTH_FIELDS if name in body), "max_tokens")
        limit = body.get(field, context)
        if size + limit <= context:
            return body
        return {**body, field: max(1, min(limit, context - await self.prompt_tokens(client, path, body)))}

    def refusal(self, status: int, content: bytes) -> Refused:
        """What the engine refused, in the form in which this server does."""
        try:
            error = json.loads(content)["error"]
            message, kind = str(error["message"]), str(error.get("code") or error.get("type"))
        except (ValueError, KeyError, TypeError):
            return Refused(502, f"the engine answered with status {status}", "engine_failed")
        if error.get("type") == "exceed_context_size_error":
            return Refused(400, f"the prompt has {error['n_prompt_tokens']:,} tokens; the model's context is "
                                f"{error['n_ctx']:,}", "context_length_exceeded", "prompt")
        if status in (401, 403):
            return Refused(502, "the engine refused this server", "engine_failed")
        return Refused(status, message, kind if not kind.isdigit() else "", error.get("param"))


class LegacyLogprobs:
    """Turns a completion, or one event of it after the other, into one with log-probabilities in the form of
    `/v1/completions`, where llama.cpp gives that of chats. `likeliest` is how many tokens are shown for each place;
    for 0 the chosen one alone is."""

    def __init__(self, likeliest: int):
        self.likeliest = likeliest
        self._characters = 0
        """Of the answer so far."""

    def __call__(self, content: bytes) -> bytes:
        prefix = b"data: " if content.startswith(b"data: ") else b""
        try:
            body = json.loads(content.removeprefix(prefix))
        except ValueError:      # [DONE]
            return content
        for choice in body.get("choices", ()):
            if tokens := (choice.get("logprobs") or {}).get("content"):
                choice["logprobs"] = self._legacy(tokens)
        return prefix + json.dumps(body).encode() + (b"\n\n" if prefix else b"")

    def _legacy(self, tokens: list[dict[str, Any]]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._characters)
            self._characters += len(token["token"])
        shown = [token["top_logprobs"] if self.likeliest else [token] for token in tokens]
        return {"tokens": [token["token"] for token in tokens],
                "token_logprobs": [token["logprob"] for token in tokens],
                "top_logprobs": [{each["token"]: each["logprob"] for each in likeliest} for likeliest in shown],
                "text_offset": offsets}


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

    async def prompt_tokens(self, client: EngineClient, path: str, body: Body) -> int:
        if path != CHAT and isinstance(body["prompt"], list):
            return len(body["prompt"])
        given: dict[str, Any] = {"messages": body["messages"]} if path == CHAT else {"prompt": body["prompt"]}
        counted = await client.ask("/tokenize", {"model": body["model"], **given})
        return int(counted["count"]) if counted else 0

    async def sized(self, client: EngineClient, path: str, body: Body, context: int, size: int) -> Body:
        if path == CHAT and not any(name in body for name in LENGTH_FIELDS):
            return body
        # it refuses a limit for which there is no room, and a completion without one would have sixteen tokens
        return await self._fitted(client, path, body, context, size)

    def refusal(self, status: int, content: bytes) -> Refused:
        refused = super().refusal(status, content)
        if refused.status == 400 and any(words in refused.message for words in TOO_LONG):
            return Refused(400, refused.message, "context_length_exceeded", refused.param)
        return refused
