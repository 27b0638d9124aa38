"""Whether what a config asks for fits into the context of a base, which the config itself does not know."""

from genai_core.config.base import Config
from genai_core.errors import InputError

PROMPT_ROOM = 16
"""Tokens that a prompt needs beside an answer."""


def require_context(stage: str, config: Config, has: int) -> None:
    """Raise InputError where a stage is to read more tokens than the `has` of the model that it starts from."""
    length, answer = getattr(config, "context_length", 0), getattr(config, "completion_tokens", 0)
    if length > has:
        raise InputError(f"{stage}.context_length: {length} is longer than the context of the base, {has}; set it to "
                         f"{has} or less")
    if answer and answer + PROMPT_ROOM > has:
        raise InputError(f"{stage}.completion_tokens: {answer} leaves no room for a prompt in the context of the base, "
                         f"{has}; set it to {has - PROMPT_ROOM} or less")
