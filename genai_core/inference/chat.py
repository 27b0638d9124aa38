"""Chat with a model directory: load it, render the conversation, stream the answer."""

from collections.abc import Iterator
from pathlib import Path

import torch

from genai_core.data.chat import Message, end_ids, render_prompt
from genai_core.data.tokenizer import load_tokenizer
from genai_core.export.model_directory import load_model, read_json
from genai_core.inference.generate import Sampling, stream
from genai_core.quantization.directory import is_quantized, load_quantized


class ChatModel:
    """A language model of this project, in full precision or quantized, with its tokenizer."""

    def __init__(self, directory: Path, device: torch.device | None = None):
        """Raises InputError, naming the file, when the directory is not a whole model."""
        device = device or torch.device("cpu")
        read_json(directory / "config.json")
        self.tokenizer = load_tokenizer(directory)
        load = load_quantized if is_quantized(directory) else load_model
        self.model = load(directory, device)
        self.end_ids = end_ids(self.tokenizer)

    def answer(self, messages: list[Message], max_new_tokens: int = 128, sampling: Sampling | None = None,
               seed: int | None = None) -> Iterator[str]:
        """Pieces of the assistant's answer to a conversation, as they are made.

        The conversation's beginning is dropped when it and the answer do not fit into the model's context.
        """
        prompt = self.tokenizer.encode(render_prompt(messages), add_special_tokens=False).ids
        context = self.model.context_length
        prompt = prompt[-max(1, context - max_new_tokens):]
        generator = None
        if seed is not None:
            generator = torch.Generator(device=next(self.model.parameters()).device).manual_seed(seed)
        ids: list[int] = []
        shown = ""
        for token in stream(self.model, prompt, min(max_new_tokens, context - 1), self.end_ids, sampling, generator):
            ids.append(token)
            text = self.tokenizer.decode(ids)
            if not text.endswith("\ufffd"):       # a character may be spread over several tokens
                yield text[len(shown):]
                shown = text
