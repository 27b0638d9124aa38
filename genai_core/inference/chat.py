"""Chatting with a language model, in full precision or quantized: render the conversation, stream the answer.

A conversation that is too long for the context loses whole turns, the oldest first: a model that was trained on whole
turns should not be given half of one. Who talks is told, once, through the log.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from genai_core.data.chat import Message, end_ids, fit_prompt
from genai_core.export.model_directory import load_model
from genai_core.inference.generate import stream, text_pieces
from genai_core.inference.sampling import Sampling
from genai_core.inference.text import OpenedTextModel
from genai_core.models.language_model import LanguageModel
from genai_core.quantization.directory import load_quantized

logger = logging.getLogger("genai_core")


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
        return text_pieces(self.tokenizer,
                           stream(self.model, prompt, max_new_tokens, self.end_ids, sampling, seed))


def open_language_model(directory: Path, device: torch.device) -> OpenedChatModel:
    return OpenedChatModel(directory, load_model(directory, device), device)


def open_quantized(directory: Path, device: torch.device) -> OpenedChatModel:
    """The quantized model of a directory, its weights in float32."""
    return OpenedChatModel(directory, load_quantized(directory, device), device)
