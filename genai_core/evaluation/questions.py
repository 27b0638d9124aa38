"""The held-out text and the questions of a run, the same for every model that is evaluated on them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from genai_core.config.release import EvaluateConfig
from genai_core.data.chat import END_OF_TEXT, plain, token_id
from genai_core.data.instructions import labelled_reviews, review_openings
from genai_core.data.tables import read_table
from genai_core.data.token_files import TokenFile, read_tokens
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.bits_per_byte import token_byte_lengths

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class HeldOutText:
    """Held-out text as the tokens of one tokenizer."""

    files: dict[str, TokenFile]
    """Split and source, e.g. `test.reviews`, to its tokens."""
    byte_lengths: torch.Tensor


@dataclass(frozen=True)
class Questions:
    """Questions of each task, from the test split."""

    reviews: Rows
    translations: Rows
    references: dict[str, list[str]]
    """Every translation of each sentence to translate."""
    titles: Rows
    trivia: Rows
    openings: list[str]


def choose_questions(config: EvaluateConfig, cleaned: Path, opening_words: int) -> Questions:
    """A fixed random choice of the test split."""
    def some(rows: Rows, count: int) -> Rows:
        return random.Random(config.seed).sample(rows, min(count, len(rows)))

    translations = read_table(cleaned, "translations", split="test")
    references: dict[str, list[str]] = {}
    for row in translations:
        references.setdefault(row["source_text"], []).append(row["target_text"])
    sentences = list({row["source_text"]: row for row in translations}.values())
    trivia = [row for row in read_table(cleaned, "chats", split="test") if row["accepted"]]
    return Questions(
        reviews=some(labelled_reviews(cleaned, "test"), config.sentiment_reviews),
        translations=some(sentences, config.translations), references=references,
        titles=some(read_table(cleaned, "titles", split="test"), config.titles),
        trivia=some(trivia, config.trivia_questions),
        openings=review_openings(cleaned, "test", opening_words, config.seed)[:config.reward_prompts])


def held_out_text(tokens: Path) -> HeldOutText:
    """The held-out files of a run's token files."""
    names = sorted(path.name.removesuffix(".bin") for path in [*tokens.glob("validation.*.bin"),
                                                               *tokens.glob("test.*.bin")])
    return HeldOutText({name: read_tokens(tokens, name) for name in names}, token_byte_lengths(load_tokenizer(tokens)))


def encoded_again(tokens: Path, cleaned: Path, tokenizer: Tokenizer, max_tokens: int) -> HeldOutText:
    """The same text for a model with another tokenizer: the first `max_tokens` tokens and one more of each file."""
    end = token_id(tokenizer, END_OF_TEXT)
    files = {}
    for name in held_out_text(tokens).files:
        ids: list[int] = []
        starts = []
        for text in texts_of(cleaned, name):
            if len(ids) > max_tokens:
                break
            starts.append(len(ids))
            ids += [*tokenizer.encode(plain(text), add_special_tokens=False).ids, end]
        files[name] = TokenFile(np.array(ids[:max_tokens + 1]), np.array(starts), 0, np.zeros(len(starts), np.int64))
    return HeldOutText(files, token_byte_lengths(tokenizer))


def texts_of(cleaned: Path, name: str) -> Iterator[str]:
    """The documents of a held-out file, in its order."""
    split, _, source = name.partition(".")
    for row in read_table(cleaned, "documents", split=split):
        if row["source"].split("/")[0] == source:
            yield row["text"]
