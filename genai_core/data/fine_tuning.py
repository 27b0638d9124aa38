"""The rows that a chat model is fine-tuned on: packed chats, and plain text so that the model does not forget it."""

from pathlib import Path

from tokenizers import Tokenizer

from genai_core.config.training import InstructConfig
from genai_core.context import Reporter
from genai_core.data.batches import random_windows
from genai_core.data.chat import END_OF_TEXT, encode_chat, token_id
from genai_core.data.instructions import build_mixture
from genai_core.data.packing import PackedRows, pack
from genai_core.data.token_files import read_tokens
from genai_core.errors import InputError

VALIDATION_CHATS = 1000
"""Most chats that the validation loss is measured on."""


def training_rows(config: InstructConfig, tokenizer: Tokenizer, cleaned: Path, tokens: Path, opening_words: int,
                  reporter: Reporter) -> PackedRows:
    """Chats of the training mixture from `cleaned`, and text from `tokens` for `text_fraction` of the rows and of the
    loss. Raises InputError when no chat has an answer that fits into a row."""
    chats = _packed(config, tokenizer, cleaned, opening_words, "train", reporter)
    if not len(chats.ids):
        raise InputError(f"instruct.context_length: none of {config.chats:,} chats has an answer within "
                         f"{config.context_length} tokens of its end; lengthen the context or shorten the chats")
    if not config.text_fraction:
        return chats
    wanted = round(len(chats.ids) * config.text_fraction / (1 - config.text_fraction))
    text = random_windows(read_tokens(tokens, "train"), wanted, config.context_length, config.seed)
    return chats.with_text(text, config.text_fraction)


def validation_rows(config: InstructConfig, tokenizer: Tokenizer, cleaned: Path, opening_words: int,
                    reporter: Reporter) -> PackedRows:
    """Chats of the validation mixture."""
    return _packed(config, tokenizer, cleaned, opening_words, "validation", reporter)


def calibration_rows(config: InstructConfig, tokenizer: Tokenizer, cleaned: Path, opening_words: int, tokens: int
                     ) -> PackedRows:
    """The first chats of the training mixture that have `tokens` tokens together, or all."""
    chats, total = [], 0
    for chat in build_mixture(cleaned, config, opening_words, "train"):
        if total >= tokens:
            break
        chats.append(encode_chat(tokenizer, chat))
        total += len(chats[-1][0])
    return pack(chats, config.context_length, token_id(tokenizer, END_OF_TEXT))


def _packed(config: InstructConfig, tokenizer: Tokenizer, cleaned: Path, opening_words: int, split: str,
            reporter: Reporter) -> PackedRows:
    chats = build_mixture(cleaned, config, opening_words, split)
    if split != "train":
        chats = chats[:VALIDATION_CHATS]
    packed = pack([encode_chat(tokenizer, chat) for chat in chats], config.context_length,
                  token_id(tokenizer, END_OF_TEXT))
    if packed.chats_cut or packed.chats_left_out:
        reporter.note(f"{split}: of {len(chats):,} chats {packed.chats_cut:,} lost their beginning to fit "
                      f"{config.context_length} tokens, and {packed.chats_left_out:,} are left out, since nothing of "
                      "an answer fits")
    return packed
