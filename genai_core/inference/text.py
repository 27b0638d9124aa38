"""Continuing text with a language model of any architecture."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, document_start, token_id
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.inference.generate import stream, text_pieces
from genai_core.inference.sampling import Sampling
from genai_core.models.kinds import open_model
from genai_core.models.language_model import LanguageModel
from genai_core.models.opened import Opened, Product, kind_of

logger = logging.getLogger("genai_core")


class OpenedTextModel(Opened):
    """A language model and its tokenizer: it continues text."""

    produces: Product = "text"
    model: LanguageModel

    def __init__(self, directory: Path, model: LanguageModel, device: torch.device):
        super().__init__(directory, model, device)
        self.tokenizer: Tokenizer = load_tokenizer(directory)

    def complete(self, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int | None = None) -> Iterator[str]:
        return continue_text(self.model, self.tokenizer, prompt, max_new_tokens, sampling, seed)


def open_text_model(directory: Path, device: torch.device) -> OpenedTextModel:
    """The language model of a directory, of whatever architecture. Raises InputError for any other directory."""
    opened = open_model(directory, device)
    if not isinstance(opened, OpenedTextModel):
        raise InputError(f"{directory}: a model of kind {kind_of(directory)} does not continue text")
    return opened


def continue_text(model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, sampling: Sampling,
                  seed: int | None) -> Iterator[str]:
    """Pieces of the text that continues `prompt`; an empty prompt stands for the beginning of a document.

    A prompt of more than half of the model's context that leaves no room for `max_new_tokens` loses its beginning, with
    a warning; the continuation is as long as there is room for.
    """
    start = document_start(tokenizer)
    ids = encode_document(tokenizer, prompt)
    room = len(ids) + max_new_tokens if model.unbounded_context else model.context_length
    if len(ids) > (longest := max(room - max_new_tokens, room // 2)):
        logger.warning(f"the prompt has {len(ids):,} tokens, of which the model reads the last {longest:,}")
        ids = start + ids[len(start) - longest:]
    ends = {token_id(tokenizer, END_OF_TEXT)}
    return text_pieces(tokenizer, stream(model, ids, min(max_new_tokens, room - len(ids)), ends, sampling, seed))


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a document that begins with `text`, behind the token that starts one for models that read such. For
    other models an empty text is the end of the document before."""
    ids = document_start(tokenizer) + tokenizer.encode(text, add_special_tokens=False).ids
    return ids or [token_id(tokenizer, END_OF_TEXT)]
