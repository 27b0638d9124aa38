"""The chat format: special tokens, the template, and encoding a chat with its completion mask.

The format is ChatML, as Qwen3 uses it; the template in `tokenizer_config.json` renders the same text.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer

from genai_core.errors import InputError

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

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


def render_prompt(messages: Sequence[Message]) -> str:
    """The text of a chat up to the point where the assistant is to answer."""
    turns = "".join(f"{TURN_START}{message['role']}\n{plain(message['content'])}{TURN_END}\n" for message in messages)
    return f"{turns}{TURN_START}assistant\n"


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a chat and its completion mask: True on what the assistant writes, its end of turn included.

    Each piece is encoded by itself, so that the mask follows token boundaries exactly. The special tokens and line ends
    around the pieces keep the ids equal to those of the whole rendered text.
    """
    ids: list[int] = []
    completion_mask: list[bool] = []
    for message in messages:
        header = tokenizer.encode(f"{TURN_START}{message['role']}\n", add_special_tokens=False).ids
        content = tokenizer.encode(f"{plain(message['content'])}{TURN_END}", add_special_tokens=False).ids
        end = tokenizer.encode("\n", add_special_tokens=False).ids
        assistant = message["role"] == "assistant"
        ids += header + content + end
        completion_mask += [False] * len(header) + [assistant] * len(content) + [False] * len(end)
    return ids, completion_mask


def end_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the tokens that end an answer."""
    return {token_id(tokenizer, TURN_END), token_id(tokenizer, END_OF_TEXT)}


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token. Raises InputError for a tokenizer that lacks it."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise InputError(f"the tokenizer has no token {token}: it is not one of this project")
    return number


def plain(text: str) -> str:
    """The text without special tokens: whoever writes a message must not be able to end a turn or start another."""
    before = None
    while text != before:      # what is left after taking one out may spell another
        before = text
        for token in SPECIAL_TOKENS:
            text = text.replace(token, "")
    return text
