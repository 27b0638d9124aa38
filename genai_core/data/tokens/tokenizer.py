"""The tokenizer: byte-level BPE trained with Hugging Face `tokenizers`, saved as the ecosystem reads it."""

import json
import logging
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from genai_core.data.chat import CHAT_TEMPLATE, END_OF_TEXT, SPECIAL_TOKENS, TURN_END, without_specials
from genai_core.data.chat_formats import FIELD, ChatFormat
from genai_core.data.specials import SpecialTokens
from genai_core.errors import InputError

logger = logging.getLogger("genai_core")

# Qwen2's pattern: contractions, words with one leading character, single digits, punctuation, line ends, spaces
_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+")

_MOST_REMEMBERED = 2**27
"""Characters after which `gigatoken`, which keeps the ids of the words that it has seen, begins anew."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) with the chat's special tokens.

    It has at most `vocab_size` entries: a small text supports fewer, which a warning tells.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    # a merge that is seen only once would be learned by heart, not from the text
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False,
                                  special_tokens=list(SPECIAL_TOKENS),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        logger.warning("the text supports a vocabulary of %s entries, not of %s", f"{tokenizer.get_vocab_size():,}",
                       f"{vocab_size:,}")
    return tokenizer


class Encoder:
    """Encodes texts without special tokens: with `gigatoken`, a dozen times as fast, or as `tokenizers` does."""

    def __init__(self, tokenizer: Tokenizer, fast: bool):
        self._tokenizer = tokenizer
        self._fast = _fast_encoder(tokenizer) if fast else None
        self._encoded = 0

    def without_specials(self, text: str) -> str:
        return without_specials(self._tokenizer, text)

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, one after the other, uint32 (T,), and the number of each text's, int64 (N,)."""
        if self._fast:
            self._encoded += sum(map(len, texts))
            if self._encoded > _MOST_REMEMBERED:
                self._fast, self._encoded = _fast_encoder(self._tokenizer), 0
            layout = self._fast.encode_batch(texts).layout
            bounds = np.asarray(layout.offsets)
            return np.asarray(layout.content.data)[bounds[0]:bounds[-1]].astype(np.uint32), np.diff(bounds)
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.array([len(row) for row in rows], np.int64)
        return np.fromiter(chain.from_iterable(rows), np.uint32, int(lengths.sum())), lengths


def encodes_fast(tokenizer: Tokenizer, texts: list[str]) -> bool:
    """Whether `gigatoken` is here, takes the tokenizer, and gives the ids of `tokenizers` for `texts`."""
    try:
        fast, plainly = Encoder(tokenizer, fast=True)(texts), Encoder(tokenizer, fast=False)(texts)
        return all(map(np.array_equal, fast, plainly))
    except (ImportError, ValueError, RuntimeError) as error:
        logger.info("gigatoken does not encode with this tokenizer (%s); tokenizers does, more slowly", error)
        return False


def _fast_encoder(tokenizer: Tokenizer) -> Any:
    from gigatoken import Tokenizer as FastTokenizer

    return FastTokenizer.from_json(tokenizer.to_str())


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "model_max_length": 1_000_000,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=1) + "\n"
    (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")


def load_tokenizer(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:      # the library raises plain Exception for a missing and for a damaged file
        raise InputError(f"{path}: not a readable tokenizer ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # it takes attributes, and cannot be inherited
    if found := _chat_format(directory / "tokenizer_config.json"):
        tokenizer.chat_format = found      # type: ignore[attr-defined]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    if found or tokenizer.normalizer is not None or special - set(SPECIAL_TOKENS):      # from outside
        tokenizer.special_tokens = SpecialTokens(tokenizer, found.specials if found else ())  # type: ignore[attr-defined]
    return tokenizer


def _chat_format(path: Path) -> ChatFormat | None:
    """The chat format of a tokenizer from outside; None where it is this project's own."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(FIELD)
        return ChatFormat.from_dict(found) if found else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a readable tokenizer config ({error})") from None
