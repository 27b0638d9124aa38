"""Loading a language model of any architecture with its tokenizer, and continuing text."""

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.model_directory import load_model
from genai_core.families.classification.generation import CLASSIFIERS, tell_sentiment
from genai_core.families.directory import load_into, model_type_of, read_shape
from genai_core.families.encoder_decoder.generation import MODELS as PAIR_MODELS
from genai_core.families.encoder_decoder.generation import PairModel
from genai_core.families.positions.model import PositionalLanguageModel, PositionalShape
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.inference.generate import Sampling, stream
from genai_core.models.language_model import LanguageModel


def load_language_model(directory: Path, device: torch.device) -> tuple[LanguageModel, Tokenizer]:
    """Raises InputError for a directory that holds no language model."""
    kind = model_type_of(directory)
    if kind == "recurrent":
        model: LanguageModel = RecurrentLanguageModel(read_shape(directory, RecurrentShape))
        load_into(model, directory, device)
    elif kind == "positional":
        model = PositionalLanguageModel(read_shape(directory, PositionalShape))
        load_into(model, directory, device)
    elif kind:
        raise InputError(f"{directory}: a model of type {kind} does not continue text")
    else:
        model = load_model(directory, device)
    return model, load_tokenizer(directory)


def respond(directory: Path, prompt: str, max_new_tokens: int, sampling: Sampling, seed: int | None,
            device: torch.device) -> Iterator[str]:
    """Pieces of what the model of a directory makes of `prompt`: a continuation, an answer, or a label."""
    kind = model_type_of(directory)
    if kind in PAIR_MODELS:
        yield PairModel(directory, device).answer([prompt])[0]
        return
    if kind in CLASSIFIERS:
        yield tell_sentiment(directory, prompt, device)
        return
    model, tokenizer = load_language_model(directory, device)
    yield from continue_text(model, tokenizer, prompt, max_new_tokens, sampling, seed)


def continue_text(model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int, sampling: Sampling,
                  seed: int | None) -> Iterator[str]:
    """Pieces of text after `prompt`; an empty prompt stands for the beginning of a document."""
    end = token_id(tokenizer, END_OF_TEXT)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids or [end]
    room = len(ids) + max_new_tokens if model.reads_on else model.context_length
    ids = ids[-max(1, room - max_new_tokens):]
    generator = None if seed is None else torch.Generator(next(model.parameters()).device).manual_seed(seed)
    told, text = [], ""
    for token in stream(model, ids, min(max_new_tokens, room - len(ids)), {end}, sampling, generator):
        told.append(token)
        whole = tokenizer.decode(told)
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):      # a character may take several tokens
            yield whole[len(text):]
            text = whole
