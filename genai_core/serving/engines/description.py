"""What the server has to know of a model before an engine answers for it, read off its directory or its GGUF file."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genai_core.data.chat import CHAT_TEMPLATE, plain, without_specials
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.gguf import FILE
from genai_core.export.model_directory import load_config
from genai_core.inference.text import encode_document
from genai_core.models.opened import kind_of, read_json, served
from genai_core.serving.errors import first_line

LANGUAGE_MODELS = ("language_model", "quantized_language_model")
"""Kinds of models that chat, once they are fine-tuned on chats."""
LONGEST_CONTEXT = 8192
"""Tokens of a conversation at most, unless more are asked for: memory is set aside for all of them."""


@dataclass(frozen=True)
class ModelDescription:
    """A model as requests meet it."""

    context: int
    """Longest sequence in tokens that it was made for."""
    without_specials: Callable[[str], str] = plain
    """A message without what the model would read as special tokens."""
    empty_prompt: tuple[int, ...] = ()
    """Token ids that stand for an empty text: the beginning of a document."""


def describe(path: Path) -> ModelDescription:
    """The description of a model directory or a GGUF file. Raises InputError for a file that does not say."""
    return _of_directory(served(path)) if path.is_dir() else _of_gguf(path)


def weights_size(path: Path) -> int:
    """Bytes of the weights that serve; 0 where there are none."""
    files = [path] if path.is_file() else [served(path) / FILE, served(path) / "model.safetensors"]
    return next((file.stat().st_size for file in files if file.is_file()), 0)


def _of_directory(directory: Path) -> ModelDescription:
    if kind_of(directory) in LANGUAGE_MODELS:
        context = load_config(directory).max_position_embeddings
    else:
        context = int(read_json(directory / "config.json").get("max_position_embeddings", LONGEST_CONTEXT))
    if not (directory / "tokenizer.json").is_file():
        return ModelDescription(context)
    tokenizer = load_tokenizer(directory)
    return ModelDescription(context, partial(without_specials, tokenizer), tuple(encode_document(tokenizer, "")))


def _of_gguf(path: Path) -> ModelDescription:
    from gguf import GGUFReader

    try:
        values = GGUFReader(path).fields

        def value(name: str, default: Any) -> Any:
            field = values.get(f"tokenizer.{name}")
            return default if field is None else field.contents()

        architecture = str(values["general.architecture"].contents())
        context = int(values[f"{architecture}.context_length"].contents())
        template = str(value("chat_template", CHAT_TEMPLATE))
        specials = _specials(value("ggml.tokens", []), value("ggml.token_type", []), template)
        starts = value("ggml.add_bos_token", value("ggml.model", "") == "llama")
        first = value("ggml.bos_token_id", None) if starts else None
        if first is None:      # the token that ends a document stands before the next one
            first = value("ggml.padding_token_id", value("ggml.eos_token_id", None))
        return ModelDescription(context, partial(_without, specials), () if first is None else (int(first),))
    except (ValueError, KeyError, IndexError, OverflowError, TypeError) as error:
        raise InputError(f"{path}: not a readable GGUF file of a language model ({first_line(error)})") from None


def _specials(tokens: Iterable[str], types: Iterable[int], template: str) -> re.Pattern[str] | None:
    """Finds control tokens, and those that whoever made the file added and writes turns with; others that were added
    may be plain words or blanks. None where there are none."""
    from gguf import TokenType

    found = [token for token, kind in zip(tokens, types, strict=False) if token and (
        kind == TokenType.CONTROL or (kind == TokenType.USER_DEFINED and token.strip() and token in template))]
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True)))) if found else None


def _without(specials: re.Pattern[str] | None, text: str) -> str:
    before = None
    while specials is not None and text != before:      # what is left after taking one out may spell another
        before, text = text, specials.sub("", text)
    return text
