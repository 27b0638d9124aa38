"""The tokenizer: byte-level BPE trained with Hugging Face `tokenizers`, saved as the ecosystem reads it."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from genai_core.data.chat import CHAT_TEMPLATE, END_OF_TEXT, SPECIAL_TOKENS, TURN_END
from genai_core.errors import InputError

logger = logging.getLogger("genai_core")

# Qwen2's pattern: contractions, words with one leading character, single digits, punctuation, line ends, spaces
_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+")

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) with the chat's special tokens.

    Raises InputError when the text does not support that many merges.
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
        raise InputError(f"tokenize.vocab_size: the text supports {tokenizer.get_vocab_size():,} entries, not "
                         f"{vocab_size:,}; lower vocab_size or add text")
    return tokenizer


def encode_batches(tokenizer: Tokenizer, texts: Iterable[str], batch: int = 1000) -> Iterator[list[int]]:
    """The ids of texts that hold no special token, by `gigatoken`, whose ids of the first batch are compared with those
    of `tokenizers`; that one, slower, does all where they differ or where gigatoken does not take the tokenizer."""
    position = iter(texts)
    first, group = list(islice(position, batch)), list(islice(position, batch))
    expected = _plainly(tokenizer, first)
    yield from expected
    fast = _fast_encoder(tokenizer, first, expected) if group else None      # which takes a moment to build
    while group:
        yield from fast(group) if fast else _plainly(tokenizer, group)
        group = list(islice(position, batch))


def _plainly(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _fast_encoder(tokenizer: Tokenizer, texts: list[str], expected: list[list[int]]
                  ) -> Callable[[list[str]], list[list[int]]] | None:
    try:
        from gigatoken import Tokenizer as FastTokenizer

        encode: Callable[[list[str]], list[list[int]]] = FastTokenizer.from_json(tokenizer.to_str()).encode_batch_list
        return encode if encode(texts) == expected else None
    except (ImportError, ValueError, RuntimeError) as error:
        logger.info("gigatoken does not encode with this tokenizer (%s); tokenizers does, more slowly", error)
        return None


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
    return tokenizer
