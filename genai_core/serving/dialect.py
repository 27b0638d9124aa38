"""How an engine is asked what OpenAI's API asks, where engines differ. This one is llama.cpp's; our own engine speaks
it too, and vLLM another one (`vllm_dialect.py`)."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from genai_core.serving.errors import Refused

Body = dict[str, Any]
Rewrite = Callable[[bytes], bytes]
"""What an engine answers, or an event of a stream, to what the client gets."""
CHAT = "/v1/chat/completions"


class Dialect:
    """The requests and answers of an engine."""

    def asked(self, path: str, body: Body) -> Body:
        """The body that the engine is sent for a request."""
        # what another request left would change the last digits
        return {**body, "cache_prompt": False} if "seed" in body else body

    def rewrite(self, path: str, body: Body) -> Rewrite | None:
        """What becomes of its answer to the client's `body`; None where that is passed on as it is."""
        return with_legacy_logprobs if path != CHAT and body.get("logprobs") else None

    async def prompt_tokens(self, client: httpx.AsyncClient, path: str, body: Body) -> int:
        """How many tokens a request's prompt has; 0 where the engine does not say."""
        if path == CHAT:
            answer = await client.post(f"{path}/input_tokens", json={"messages": body["messages"]})
            return int(answer.json()["input_tokens"]) if answer.is_success else 0
        if isinstance(body["prompt"], list):
            return len(body["prompt"])
        answer = await client.post("/tokenize", json={"content": body["prompt"], "parse_special": True})
        return len(answer.json()["tokens"]) if answer.is_success else 0

    async def sized(self, client: httpx.AsyncClient, path: str, body: Body, context: int) -> Body:
        """A body for the engine in which the length of the answer stands, where it would otherwise be cut short."""
        return body

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


def with_legacy_logprobs(content: bytes) -> bytes:
    """A completion, or an event of one, with log-probabilities in the form of `/v1/completions`, where llama.cpp gives
    that of chats."""
    prefix = b"data: " if content.startswith(b"data: ") else b""
    try:
        body = json.loads(content.removeprefix(prefix))
    except ValueError:      # [DONE]
        return content
    for choice in body.get("choices", ()):
        if tokens := (choice.get("logprobs") or {}).get("content"):
            texts = [token["token"] for token in tokens]
            choice["logprobs"] = {
                "tokens": texts, "token_logprobs": [token["logprob"] for token in tokens],
                "top_logprobs": [{other["token"]: other["logprob"] for other in token["top_logprobs"]}
                                 for token in tokens],
                "text_offset": [len("".join(texts[:place])) for place in range(len(texts))]}
    return prefix + json.dumps(body).encode() + (b"\n\n" if prefix else b"")
