"""What a request may ask for: the fields of OpenAI's API that the engines have, within limits.

An unknown field is refused by name, so that nobody believes it to be obeyed; what only concerns OpenAI's own accounts
is taken and left aside.
"""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from genai_core.data.chat import plain
from genai_core.serving.errors import Refused

ASIDE = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
MOST_STOPS = 16
MOST_MESSAGES = 1000


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    def as_plain(self) -> dict[str, str]:
        """One text, without the special tokens by which a turn ends: who writes it must not be able to end one."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": plain(text)}


class _StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False


class _Schema(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = "schema"
    strict: bool | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class _Format(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "_Format":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self


class _Common(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=0, lt=2**32)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=1000)

    @field_validator("stop")
    @classmethod
    def _few(cls, value: str | list[str] | None) -> list[str] | None:
        """Those that are not empty: an empty one is found everywhere."""
        stops = [stop for stop in ([value] if isinstance(value, str) else value or ()) if stop]
        if len(stops) > MOST_STOPS:
            raise ValueError(f"at most {MOST_STOPS} stops")
        return stops or None


class ChatRequest(_Common):
    messages: list[_Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: _Format | None = None

    @property
    def size(self) -> int:
        """No more tokens than this: each is a byte at least, and a turn has some around it."""
        texts = [message.as_plain()["content"] for message in self.messages]
        return sum(len(text.encode()) + 16 for text in texts) + 16

    def body(self) -> dict[str, Any]:
        return {**_given(self), "messages": [message.as_plain() for message in self.messages]}


class CompletionRequest(_Common):
    prompt: str | Annotated[list[int], Field(min_length=1)] | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def size(self) -> int:
        return len(self.prompt) if isinstance(self.text, list) else len(self.text.encode()) + 1

    @property
    def text(self) -> str | list[int]:
        single = self.prompt[0] if isinstance(self.prompt, list) else self.prompt
        return single if isinstance(single, str) else self.prompt      # type: ignore[return-value]

    def body(self) -> dict[str, Any]:
        return {**_given(self), "prompt": self.text}


def read_request(kind: type[ChatRequest] | type[CompletionRequest], body: bytes) -> ChatRequest | CompletionRequest:
    """The request in a body. Raises Refused, naming the field, for what is none."""
    try:
        given = TypeAdapter(dict[str, Any]).validate_json(body)
        json.dumps(given, allow_nan=False)
        return kind.model_validate({name: value for name, value in given.items() if name not in ASIDE})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    except ValueError:
        raise Refused(400, "the body is not valid JSON: a number that is not finite") from None
    except RecursionError:
        raise Refused(400, "the body is not valid JSON: nested too deep") from None
    where = ".".join(str(part) for part in first["loc"] if re.fullmatch(r"[a-z_]+|\d+", str(part)))
    if not where:
        raise Refused(400, f"the body is not valid JSON: {first['msg']}" if first["type"] == "json_invalid" else
                      "the body is not a JSON object")
    if first["type"] == "extra_forbidden":
        raise Refused(400, f"{where}: there is no such field here", "unknown_parameter", where)
    raise Refused(400, f"{where}: {first['msg'].removeprefix('Value error, ')}", "invalid_value", where)


def _given(request: _Common) -> dict[str, Any]:
    return request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
