"""The chat format: special tokens, the template, and encoding a chat with its completion mask.

The format is ChatML, as Qwen3 uses it; the template in `tokenizer_config.json` renders the same text. A tokenizer from
outside may come with another one (`chat_formats.py`), which `load_tokenizer` hangs on it.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer

from genai_core.errors import InputError

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

ANSWER_START = f"{TURN_START}assistant\n"

TURNS_LOST = ("the conversation does not fit into the model's context of {context} tokens: its oldest turns are left "
              "out")
MESSAGE_CUT = "the last message does not fit into the model's context of {context} tokens: its beginning is left out"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Message = dict[str, str]
Chat = list[Message]


def adopted_format(tokenizer: Tokenizer) -> Any:
    """The `ChatFormat` of a tokenizer from outside; None for this project's own format."""
    return getattr(tokenizer, "chat_format", None)


def document_start(tokenizer: Tokenizer) -> list[int]:
    """Ids that begin every document for a model from outside that reads such; none for others."""
    adopted = adopted_format(tokenizer)
    return [token_id(tokenizer, adopted.document_start)] if adopted and adopted.document_start else []


def without_specials(tokenizer: Tokenizer, text: str) -> str:
    """The text of other people without what the tokenizer would read as special tokens."""
    found = getattr(tokenizer, "special_tokens", None)
    return str(found.taken_out(text)) if found else plain(text)


def cleaned(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[Message]:
    """Messages without what the tokenizer would read as special tokens."""
    return [{**message, "content": without_specials(tokenizer, message["content"])} for message in messages]


def end_of(ids: list[int], room: int, start: Sequence[int]) -> list[int]:
    """The last `room` token ids, behind the `start` of a document where they begin with it."""
    if len(ids) <= room:
        return ids
    kept = start if ids[:len(start)] == list(start) else []
    return [*kept, *ids[len(ids) - max(0, room - len(kept)):]]


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to the point where the assistant is to answer."""
    if adopted := adopted_format(tokenizer):
        return list(adopted.encode_prompt(tokenizer, messages))
    return list(_encoded(tokenizer, render_prompt(cleaned(tokenizer, messages))))


def render_prompt(messages: Sequence[Message]) -> str:
    """The text of a chat up to the point where the assistant is to answer."""
    return "".join(map(_rendered, messages)) + ANSWER_START


def _rendered(message: Message) -> str:
    return f"{TURN_START}{message['role']}\n{plain(message['content'])}{TURN_END}\n"


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a chat and its completion mask: True on what the assistant writes, its end of turn included.

    Each piece is encoded by itself, so that the mask follows token boundaries exactly. The special tokens and line ends
    around the pieces keep the ids equal to those of the whole rendered text.
    """
    if adopted := adopted_format(tokenizer):
        found: tuple[list[int], list[bool]] = adopted.encode_chat(tokenizer, messages)
        return found
    ids: list[int] = []
    completion_mask: list[bool] = []
    for message in messages:
        header = tokenizer.encode(f"{TURN_START}{message['role']}\n", add_special_tokens=False).ids
        text = without_specials(tokenizer, message["content"])
        content = tokenizer.encode(f"{text}{TURN_END}", add_special_tokens=False).ids
        end = tokenizer.encode("\n", add_special_tokens=False).ids
        assistant = message["role"] == "assistant"
        ids += header + content + end
        completion_mask += [False] * len(header) + [assistant] * len(content) + [False] * len(end)
    return ids, completion_mask


def end_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the tokens that end an answer."""
    return {token_id(tokenizer, TURN_END), token_id(tokenizer, END_OF_TEXT)}


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token, or of what has its role in a tokenizer from outside. Raises InputError for a tokenizer
    that lacks it."""
    if adopted := adopted_format(tokenizer):
        token = adopted.tokens.get(token, token)
    number = tokenizer.token_to_id(token)
    if number is None:
        raise InputError(f"the tokenizer has no token {token}: it is not one of this project")
    return number


def plain(text: str) -> str:
    """The text without special tokens of this project: whoever writes a message must not be able to end a turn or start
    another."""
    before = None
    while text != before:      # what is left after taking one out may spell another
        before = text
        for token in SPECIAL_TOKENS:
            text = text.replace(token, "")
    return text


def fit_prompt(tokenizer: Tokenizer, messages: list[Message], room: int) -> tuple[list[int], str]:
    """Token ids of the prompt in at most `room` tokens, and what was lost: nothing, TURNS_LOST or MESSAGE_CUT.

    A system message at the front stays, unless it leaves no room for any other. Of the rest the oldest turns go, an
    answer with its question. Only when the last message alone is too long does it lose its beginning.
    """
    if adopted := adopted_format(tokenizer):
        fitted: tuple[list[int], str] = adopted.fit_prompt(tokenizer, messages, room)
        return fitted
    messages = cleaned(tokenizer, messages)
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = messages[len(system):]
    # the special tokens at its ends keep the ids of a message the same, whatever comes before and after it
    pieces = [_encoded(tokenizer, _rendered(message)) for message in messages]
    start_of_answer = _encoded(tokenizer, ANSWER_START)
    for first in range(max(1, len(turns))):
        if 0 < first < len(turns) - 1 and turns[first]["role"] == "assistant":
            continue
        kept = [*pieces[:len(system)], *pieces[len(system) + first:], start_of_answer]
        if sum(map(len, kept)) <= room:
            return list(chain.from_iterable(kept)), TURNS_LOST if first else ""
    if not turns:
        return list(chain.from_iterable(kept))[-room:], MESSAGE_CUT
    frame = render_prompt([*system, {**turns[-1], "content": ""}])
    before, _, after = frame.rpartition(TURN_END)
    start, end = _encoded(tokenizer, before), _encoded(tokenizer, TURN_END + after)
    left = room - len(start) - len(end)
    if left < 1 and system:
        ids, lost = fit_prompt(tokenizer, turns, room)
        return ids, lost or TURNS_LOST
    content = _encoded(tokenizer, turns[-1]["content"])
    return [*start, *content[-max(1, left):], *end][-room:], MESSAGE_CUT


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
