"""Chatting with a language model, in full precision or quantized: render the conversation, stream the answer."""

from collections.abc import Iterator
from pathlib import Path

import torch

from genai_core.data.chat import Message, end_ids, render_prompt
from genai_core.export.model_directory import load_model
from genai_core.inference.generate import Sampling, stream, text_pieces
from genai_core.inference.text import OpenedTextModel
from genai_core.models.language_model import LanguageModel
from genai_core.quantization.directory import load_quantized


class OpenedChatModel(OpenedTextModel):
    """A language model that was fine-tuned on chats."""

    produces = "chat"

    def __init__(self, directory: Path, model: LanguageModel, device: torch.device):
        super().__init__(directory, model, device)
        self.end_ids = end_ids(self.tokenizer)

    def chat(self, messages: list[Message], max_new_tokens: int = 128, sampling: Sampling | None = None,
             seed: int | None = None) -> Iterator[str]:
        """Pieces of the assistant's answer to a conversation, as it is written.

        A conversation that leaves no room for `max_new_tokens` in the model's context loses its beginning.
        """
        prompt = self.tokenizer.encode(render_prompt(messages), add_special_tokens=False).ids
        context = self.model.context_length
        prompt = prompt[-max(1, context - max_new_tokens):]
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)
        tokens = stream(self.model, prompt, min(max_new_tokens, context - 1), self.end_ids, sampling, generator)
        return text_pieces(self.tokenizer, tokens)


def open_language_model(directory: Path, device: torch.device) -> OpenedChatModel:
    return OpenedChatModel(directory, load_model(directory, device), device)


def open_quantized(directory: Path, device: torch.device) -> OpenedChatModel:
    """The quantized model of a directory, on the CPU, where it is meant to run."""
    cpu = torch.device("cpu")
    return OpenedChatModel(directory, load_quantized(directory, cpu), cpu)
