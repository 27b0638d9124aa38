"""The answers that people judge: of a model that chats, or of a base model that continues the conversation as text."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from genai_core.data.chat import Chat
from genai_core.data.instruction.examples import plain_conversation
from genai_core.inference.sampling import Sampling
from genai_core.inference.text import open_text_model


def answerer(directory: Path, chats: bool, tokens: int, sampling: Sampling, device: torch.device
             ) -> Callable[[Chat, int], Iterator[str]]:
    """A function of a prompt and a seed that gives the pieces of a model's answer, of at most `tokens` tokens."""
    opened = open_text_model(directory, device)
    talks = chats and opened.produces == "chat"

    def answer(prompt: Chat, seed: int) -> Iterator[str]:
        if talks:
            return opened.chat(prompt, tokens, sampling, seed)
        return first_line(opened.complete(plain_conversation(prompt), tokens, sampling, seed))

    return answer


def first_line(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a text up to the end of its first line that is not empty."""
    begun = False
    for piece in pieces:
        line, end, _ = (piece if begun else piece.lstrip()).partition("\n")
        begun = begun or bool(line)
        yield line
        if end:
            return
