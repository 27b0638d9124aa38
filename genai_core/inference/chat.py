"""Chatting with a language model, in full precision or quantized: render the conversation, stream the answer.

A conversation that is too long for the context loses whole turns, the oldest first: a model that was trained on whole
turns should not be given half of one. Who talks is told, once, through the log.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.data.chat import TURN_END, Message, end_ids, plain, render_prompt
from genai_core.export.model_directory import load_model
from genai_core.inference.generate import Sampling, stream, text_pieces
from genai_core.inference.text import OpenedTextModel
from genai_core.models.language_model import LanguageModel
from genai_core.quantization.directory import load_quantized

logger = logging.getLogger("genai_core")

TURNS_LOST = ("the conversation does not fit into the model's context of {context} tokens: its oldest turns are left "
              "out")
MESSAGE_CUT = "the last message does not fit into the model's context of {context} tokens: its beginning is left out"


class OpenedChatModel(OpenedTextModel):
    """A language model that was fine-tuned on chats."""

    produces = "chat"

    def __init__(self, directory: Path, model: LanguageModel, device: torch.device):
        super().__init__(directory, model, device)
        self.end_ids = end_ids(self.tokenizer)
        self._told: set[str] = set()

    def chat(self, messages: list[Message], max_new_tokens: int = 128, sampling: Sampling | None = None,
             seed: int | None = None) -> Iterator[str]:
        """Pieces of the assistant's answer to a conversation, as it is written.

        The oldest turns are dropped when the conversation and the answer do not fit into the model's context. An answer
        for which half of the context is too short may be shorter than `max_new_tokens`, for the conversation's sake.
        """
        context = self.model.context_length
        prompt, lost = fit_prompt(self.tokenizer, messages, max(context - max_new_tokens, context // 2))
        if lost and lost not in self._told:
            self._told.add(lost)
            logger.warning(lost.format(context=f"{context:,}"))
        max_new_tokens = min(max_new_tokens, context - len(prompt))
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        tokens = stream(self.model, prompt, max_new_tokens, self.end_ids, sampling, generator)
        return text_pieces(self.tokenizer, tokens)


def open_language_model(directory: Path, device: torch.device) -> OpenedChatModel:
    return OpenedChatModel(directory, load_model(directory, device), device)


def open_quantized(directory: Path, device: torch.device) -> OpenedChatModel:
    """The quantized model of a directory, on the CPU, where it is meant to run."""
    cpu = torch.device("cpu")
    return OpenedChatModel(directory, load_quantized(directory, cpu), cpu)


def fit_prompt(tokenizer: Tokenizer, messages: list[Message], room: int) -> tuple[list[int], str]:
    """Token ids of the prompt in at most `room` tokens, and what was lost: nothing, TURNS_LOST or MESSAGE_CUT.

    A system message at the front stays, unless it leaves no room for any other. Of the rest the oldest turns go, an
    answer with its question. Only when the last message alone is too long does it lose its beginning.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = messages[len(system):]
    for first in range(max(1, len(turns))):
        if 0 < first < len(turns) - 1 and turns[first]["role"] == "assistant":
            continue
        ids = _encoded(tokenizer, render_prompt(system + turns[first:]))
        if len(ids) <= room:
            return ids, TURNS_LOST if first else ""
    if not turns:
        return ids[-room:], MESSAGE_CUT
    frame = render_prompt([*system, {**turns[-1], "content": ""}])
    before, _, after = frame.rpartition(TURN_END)
    start, end = _encoded(tokenizer, before), _encoded(tokenizer, TURN_END + after)
    left = room - len(start) - len(end)
    if left < 1 and system:
        ids, lost = fit_prompt(tokenizer, turns, room)
        return ids, lost or TURNS_LOST
    content = _encoded(tokenizer, plain(turns[-1]["content"]))
    return [*start, *content[-max(1, left):], *end][-room:], MESSAGE_CUT


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
