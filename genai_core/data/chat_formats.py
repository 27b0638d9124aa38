"""The chat format of a model from outside: its own Jinja template and special tokens.

The template decides what the assistant writes: a conversation is rendered up to each answer, and what the answer adds
is what is learned. Templates come from strangers, so they run in Jinja's sandbox.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from genai_core.data.chat import (
    END_OF_TEXT,
    MESSAGE_CUT,
    TURN_END,
    TURNS_LOST,
    Chat,
    Message,
    cleaned,
    end_of,
    without_specials,
)
from genai_core.errors import InputError

FIELD = "genai_chat_format"
"""Field of `tokenizer_config.json` that holds a format which is not this project's own."""
_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


@dataclass(frozen=True)
class ChatFormat:
    """How a model from outside reads conversations and documents."""

    template: str
    """Jinja template of a conversation."""
    end_of_text: str
    """Token that ends a document."""
    turn_end: str
    """Token that ends an answer."""
    document_start: str = ""
    """Token that begins every document; empty for a model that reads none."""
    bos_token: str = ""
    """What the template is given under this name."""
    eos_token: str = ""
    """Likewise."""
    specials: tuple[str, ...] = ()
    """Tokens that a message must not contain, beside those that the tokenizer holds for special."""

    @property
    def tokens(self) -> dict[str, str]:
        """This project's token to the one that has its role here."""
        return {END_OF_TEXT: self.end_of_text, TURN_END: self.turn_end}

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The text of a conversation, `generate` up to where the assistant is to answer. Raises InputError for one that
        the template refuses."""
        try:
            return str(_compiled(self.template).render(
                messages=[dict(message) for message in messages], add_generation_prompt=generate, tools=None,
                bos_token=self.bos_token, eos_token=self.eos_token))
        except Exception as error:      # a template may fail in any way
            roles = ", ".join(message["role"] for message in messages)
            raise InputError(f"the chat template of the base refuses a conversation of {roles}: "
                             f"{' '.join(str(error).split())}; change the conversation, or the template in the base's "
                             "tokenizer_config.json") from None

    def encode_chat(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation and its completion mask: True on what the assistant writes, its end of turn
        included. Raises InputError for a template that writes the beginning of a conversation otherwise when it goes
        on, or an answer without its end."""
        messages = cleaned(tokenizer, messages)
        ids: list[int] = []
        mask: list[bool] = []
        done = ""

        def add(before: str, text: str, learned: bool) -> None:
            """Go on after `before`, whose ids are there: as the whole reads, where that does not change them (a
            tokenizer may put a blank in front of whatever it is given), else as the text reads by itself."""
            if not text:
                return
            whole = tokenizer.encode(before + text, add_special_tokens=False).ids
            kept = whole[:len(ids)] == ids
            new = whole[len(ids):] if kept else tokenizer.encode(text, add_special_tokens=False).ids
            ids.extend(new)
            mask.extend([learned] * len(new))

        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:number], generate=True)
            after = self.render(messages[:number + 1], generate=False)
            if not (before.startswith(done) and after.startswith(before)):
                raise InputError(f"the chat template of the base writes message {number} otherwise once the "
                                 "conversation goes on, so that nobody can tell what the assistant says")
            add(done, before[len(done):], False)
            answer, end, _ = after[len(before):].rpartition(self.turn_end)
            if not end:
                raise InputError(f"the chat template of the base writes no {self.turn_end} after message {number}, so "
                                 "that nobody can tell where the answer ends; change the conversation, or the template")
            add(before, answer + end, True)
            done = before + answer + end
        whole = self.render(messages, generate=False)
        add(done, whole[len(done):] if whole.startswith(done) else "", False)
        return ids, mask

    def encode_prompt(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the assistant is to answer."""
        return list(tokenizer.encode(self.render(cleaned(tokenizer, messages), True), add_special_tokens=False).ids)

    def fit_prompt(self, tokenizer: Tokenizer, messages: Chat, room: int) -> tuple[list[int], str]:
        """As `fit_prompt` of `chat.py`, by this template."""
        start = [number] if (number := tokenizer.token_to_id(self.document_start)) is not None else []
        system = [message for message in messages[:1] if message["role"] == "system"]
        turns = messages[len(system):]
        for first in range(max(1, len(turns))):
            if 0 < first < len(turns) - 1 and turns[first]["role"] == "assistant":
                continue
            ids = self.encode_prompt(tokenizer, [*system, *turns[first:]])
            if len(ids) <= room:
                return ids, TURNS_LOST if first else ""
        if not turns:
            return end_of(ids, room, start), MESSAGE_CUT
        last = turns[-1]
        frame = len(self.encode_prompt(tokenizer, [*system, {**last, "content": ""}]))
        if frame >= room and system:
            ids, lost = self.fit_prompt(tokenizer, turns, room)
            return ids, lost or TURNS_LOST
        content = tokenizer.encode(without_specials(tokenizer, last["content"]), add_special_tokens=False).ids
        kept = tokenizer.decode(content[-max(1, room - frame):])
        ids = self.encode_prompt(tokenizer, [*system, {**last, "content": kept}])
        return end_of(ids, room, start), MESSAGE_CUT

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"specials": list(self.specials)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ChatFormat":
        return cls(**{**values, "specials": tuple(values["specials"])})


def without_generation(template: str) -> str:
    """The template without the tags that mark what the assistant writes, which are no part of Jinja and which other
    programs do not know: in their place stand tags that do nothing, and take as much white space away."""
    return _GENERATION.sub(lambda found: f"{{%{found[1]} {'endif' if found[2] else 'if true'} {found[3]}%}}", template)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the assistant writes, as `transformers` parses it; it does nothing."""

        tags = {"generation"}      # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda _: ""      # a prompt must not depend on the day
    return environment.from_string(template)
